"""File names are labels: cleaned, never a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.sources.uploads import clean_name


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a b.docx", "a b.docx"),
        ("a\0b\r\nc\x1b[31m.md", "abc[31m.md"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("..", "upload"),
        ("", "upload"),
        ("dir/", "upload"),
        (".hidden.md", "hidden.md"),
        ("x" * 300 + ".docx", "x" * 250 + ".docx"),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_name_is_cleaned(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@given(st.text(st.characters(), max_size=400))
def test_any_name_becomes_a_short_visible_label(name: str) -> None:
    clean = clean_name(name)
    assert 0 < len(clean) <= 255
    assert not set("/\\\0\n\r") & set(clean)
    clean.encode("utf-8")
