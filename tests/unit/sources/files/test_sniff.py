"""The type of a file: bytes decide, claims must agree."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import DocumentEncrypted, DocumentTypeMismatch, DocumentTypeUnsupported
from shield.sources.files.sniff import Kind, needs_docling, sniff

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ZIP = b"PK\x03\x04rest"


def kind_of(content: bytes, name: str = "", mime: str | None = None, inside: tuple[str, ...] = ()) -> Kind:
    return sniff(content, name, mime, lambda: inside)


@pytest.mark.parametrize(
    ("content", "name", "mime", "inside", "kind"),
    [
        (b"%PDF-1.7 ...", "a.pdf", "application/pdf", (), Kind.PDF),
        (b"\n\n%PDF-1.7 ...", "", None, (), Kind.PDF),
        (ZIP, "a.DOCX", None, ("word/document.xml",), Kind.DOCX),
        (ZIP, "", "application/octet-stream", ("ppt/presentation.xml",), Kind.PPTX),
        (ZIP, "a.xlsx", None, ("x", "xl/workbook.xml"), Kind.XLSX),
        (b"# title", "a.md", "text/plain", (), Kind.MD),
        (b"# title", "a.markdown", None, (), Kind.MD),
        (b"a;b", "a.csv", "application/vnd.ms-excel", (), Kind.CSV),
        (b"a\tb", "a.tsv", None, (), Kind.CSV),
        (b"words", "README", None, (), Kind.TXT),
        (b"words", "", "text/plain; charset=utf-8", (), Kind.TXT),
        (b"<p>x", "page.html", None, (), Kind.HTML),
        (b"<p>x", "index.php", "text/html; charset=x", (), Kind.HTML),
        (b"<!DOCTYPE html><p>x", "", None, (), Kind.HTML),
        (b"\xef\xbb\xbf <!-- c --> <html><p>x", "index.aspx", None, (), Kind.HTML),
        (b"<!doctype html><p>x", "README.md", "text/html", (), Kind.HTML),
        (b"<html> in text", "a.txt", None, (), Kind.TXT),
        (b"BM is no bitmap, MZ no program", "a.txt", None, (), Kind.TXT),
    ],
)
def test_an_honest_file_has_its_kind(content: bytes, name: str, mime: str | None, inside: tuple[str, ...], kind: Kind) -> None:
    assert kind_of(content, name, mime, inside) is kind


@pytest.mark.parametrize(
    ("content", "name", "mime", "inside"),
    [
        (b"<html>", "a.pdf", None, ()),
        (b"%PDF-1.7", "a.txt", None, ()),
        (b"%PDF-1.7", "a.pdf", "text/html", ()),
        (ZIP, "a.docx", None, ("xl/workbook.xml",)),
        (b"words", "", "application/pdf", ()),
        (b"\x89PNG\r\n", "a.txt", None, ()),
        (b"not a zip", "a.docx", None, ()),
    ],
)
def test_a_claim_that_the_bytes_contradict_is_refused(content: bytes, name: str, mime: str | None, inside: tuple[str, ...]) -> None:
    with pytest.raises(DocumentTypeMismatch):
        kind_of(content, name, mime, inside)


@pytest.mark.parametrize(
    ("content", "name", "inside"),
    [
        (b"\x89PNG\r\n", "a.png", ()),
        (b"\x1f\x8b\x08", "", ()),
        (ZIP, "a.zip", ("readme.txt",)),
        (OLE + b"W\0o\0r\0d\0", "a.doc", ()),
        (b"{}", "a.json", ()),
        (b"int main;", "a.c", ()),
        (b"PK\x05\x06" + b"\0" * 18, "", ()),
    ],
)
def test_what_nothing_here_reads_is_unsupported(content: bytes, name: str, inside: tuple[str, ...]) -> None:
    with pytest.raises(DocumentTypeUnsupported):
        kind_of(content, name, None, inside)


def test_an_office_file_under_a_password_is_named_as_such() -> None:
    with pytest.raises(DocumentEncrypted):
        kind_of(OLE + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le"), "a.docx")


@given(st.binary(max_size=200), st.text(max_size=30), st.none() | st.text(max_size=40))
def test_any_bytes_and_claims_give_a_kind_or_a_typed_error(content: bytes, name: str, mime: str | None) -> None:
    with suppress(DocumentTypeMismatch, DocumentTypeUnsupported, DocumentEncrypted):
        assert kind_of(content, name, mime) in Kind


@given(st.sampled_from([b"%PDF-1.4", ZIP, b"<html>", b"# md"]), st.sampled_from(["a.pdf", "a.docx", "a.html", "a.md", ""]))
def test_whatever_docling_reads_is_forked_with_docling(content: bytes, name: str) -> None:
    try:
        kind = kind_of(content, name, None, ("word/document.xml",))
    except DocumentTypeMismatch:
        return
    assert needs_docling(content, name, None) or kind in {Kind.TXT, Kind.CSV}
