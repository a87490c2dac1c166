"""What kind of file this is: decided by its bytes, then held against what its name and its sender say.

Magic bytes decide for PDF and Office files; text has none, so there the name decides among text formats, then the declared
type, then the look of it. A claim that contradicts the bytes is refused (`document.type_mismatch`), and so is a kind that
nothing here reads (`document.type_unsupported`). Office files are told apart by the names inside the archive, which are
looked at in the converting child only: `sniff` is handed a function for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import PurePosixPath

from shield.errors import DocumentEncrypted, DocumentTypeMismatch, DocumentTypeUnsupported


class Kind(StrEnum):
    """The formats that are read."""

    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"
    HTML = "html"
    MD = "md"
    TXT = "txt"
    CSV = "csv"

    @property
    def mime(self) -> str:
        """The format's media type."""
        return _MIME[self]


_OFFICE = "application/vnd.openxmlformats-officedocument"
_MIME = {
    Kind.PDF: "application/pdf",
    Kind.DOCX: f"{_OFFICE}.wordprocessingml.document",
    Kind.PPTX: f"{_OFFICE}.presentationml.presentation",
    Kind.XLSX: f"{_OFFICE}.spreadsheetml.sheet",
    Kind.HTML: "text/html",
    Kind.MD: "text/markdown",
    Kind.TXT: "text/plain",
    Kind.CSV: "text/csv",
}
_BY_MIME = {mime: kind for kind, mime in _MIME.items()} | {
    "application/xhtml+xml": Kind.HTML,
    "text/x-markdown": Kind.MD,
    "text/tab-separated-values": Kind.CSV,
}
_BY_SUFFIX = {f".{kind}": kind for kind in Kind} | {
    ".htm": Kind.HTML,
    ".xhtml": Kind.HTML,
    ".markdown": Kind.MD,
    ".text": Kind.TXT,
    ".log": Kind.TXT,
    ".tsv": Kind.CSV,
}
_TEXT = frozenset({Kind.HTML, Kind.MD, Kind.TXT, Kind.CSV})
_MAIN_PART = {"word/document.xml": Kind.DOCX, "ppt/presentation.xml": Kind.PPTX, "xl/workbook.xml": Kind.XLSX}
_FOREIGN = (  # recognisable formats that nothing here reads; none starts like a text might
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!\x1a", b"\x7fELF"),
    *(b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"SQLite format 3\0", b"{\\rtf", b"%!PS-", b"\0asm", b"PK\x05\x06", b"PK\x07\x08"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MARKUP = re.compile(rb"^\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)


def sniff(content: bytes, filename: str, mime: str | None, names_inside: Callable[[], Iterable[str]]) -> Kind:
    """The kind of a file.

    Args:
        content: the file.
        filename: its name; may be empty.
        mime: the type its sender declared, parameters allowed.
        names_inside: called for a zip archive only: the names of its entries.

    Raises:
        DocumentTypeUnsupported: nothing here reads it.
        DocumentTypeMismatch: name or declared type contradict the bytes.
        DocumentEncrypted: it is an Office file under a password.
    """
    by_name, by_mime = claim_of_name(filename), claim_of_mime(mime)
    found = _binary(content, names_inside)
    if found is None:
        return _text(content, by_name, by_mime, named=bool(PurePosixPath(filename).suffix))
    for claim in (by_name, by_mime):
        if claim is not None and claim is not found:
            raise DocumentTypeMismatch(f"The file is {found.name}, but is presented as {claim.name}.", found=str(found), claimed=str(claim))
    return found


def needs_docling(content: bytes, filename: str, mime: str | None) -> bool:
    """Whether converting this will use Docling; a guess that costs nothing and decides what a child is forked from."""
    if content[:4] == b"PK\x03\x04" or b"%PDF-" in content[:1024]:
        return True
    return (claim_of_name(filename) or claim_of_mime(mime) or Kind.HTML) not in {Kind.TXT, Kind.CSV}


def claim_of_name(filename: str) -> Kind | None:
    """What the name says, if its ending is a known one."""
    return _BY_SUFFIX.get(PurePosixPath(filename).suffix.lower())


def claim_of_mime(mime: str | None) -> Kind | None:
    """What the declared type says, if it is a known one."""
    return _BY_MIME.get((mime or "").partition(";")[0].strip().lower())


def _binary(content: bytes, names_inside: Callable[[], Iterable[str]]) -> Kind | None:
    if b"%PDF-" in content[:1024]:
        return Kind.PDF
    if content.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in content:
            raise DocumentEncrypted
        raise DocumentTypeUnsupported("The file is in an old Office format; save it as DOCX, PPTX or XLSX.")
    if content.startswith(b"PK\x03\x04"):
        for name in names_inside():
            if name in _MAIN_PART:
                return _MAIN_PART[name]
        raise DocumentTypeUnsupported("The file is an archive, but no Office document.")
    return None


def _text(content: bytes, by_name: Kind | None, by_mime: Kind | None, *, named: bool) -> Kind:
    foreign = content.startswith(_FOREIGN)
    for claim in (by_name, by_mime):
        if claim is not None and (claim not in _TEXT or foreign):
            raise DocumentTypeMismatch(f"The file is presented as {claim.name}, but its content is something else.", claimed=str(claim))
    if foreign:
        raise DocumentTypeUnsupported
    looks_like_html = bool(_MARKUP.match(content[:4096].removeprefix(b"\xef\xbb\xbf")))
    if looks_like_html and (by_mime is Kind.HTML or not (by_name or by_mime)):
        return Kind.HTML
    if by_name or by_mime:
        return by_name or by_mime or Kind.TXT
    if named:  # an ending that is not ours, and nothing else that speaks for it
        raise DocumentTypeUnsupported
    return Kind.TXT
