"""Sample files built in code: honest ones of every format, and hostile ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

SENTENCE = "The quick brown fox jumps over the lazy dog while the patient keeper watches the river rise. "

HTML = b"""<!doctype html><html><head><title>Valve guide</title></head><body><nav>Nav words</nav><header>site head</header>
<h1>Valves</h1><p>Some <b>bold</b>, and a <a href="/x">link</a>.</p><h2>Kinds</h2>
<ul><li>ball<ul><li>trunnion</li></ul></li><li>gate <code>DN50</code> size</li></ul>
<table><tr><th>Part</th><th>Code</th></tr><tr><td>ring <b>seal</b></td><td>E4711</td></tr></table>
<pre><code>x = 1
  y</code></pre><footer>foot</footer></body></html>"""

MARKDOWN = b"""---
title: "From the front"
tags: [a, b]
---
# Pump manual

Intro *emph* and `code_x` and a_b * c, see [link](http://x/y). 5 < 6 & AT&T

## Parts

- rotor
- stator **big**
  - winding

| Part | Code |
|---|---|
| rotor | E_47 |

```python
def f():
    return 1
```
"""


def docx() -> bytes:
    """Title, two levels of headings, formatted text, lists, a table, a page header."""
    from docx import Document

    made = Document()
    made.sections[0].header.paragraphs[0].text = "RUNNING HEADER"
    made.add_heading("The handbook", 0)
    made.add_heading("First part", 1)
    paragraph = made.add_paragraph("Plain with ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(" text & more_under * star.")
    made.add_heading("Deeper", 2)
    made.add_paragraph("one", style="List Bullet")
    made.add_paragraph("two", style="List Bullet")
    table = made.add_table(2, 2)
    for row, cells in enumerate((("Name", "Value|pipe"), ("port", "8000"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    made.add_paragraph("Last words.")
    return _saved(made)


def pptx() -> bytes:
    """Two slides with bullets and notes, one with a table."""
    from pptx import Presentation
    from pptx.util import Inches

    made = Presentation()
    for number in (1, 2):
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number}"
        frame = slide.placeholders[1].text_frame
        frame.text = "bullet a"
        below = frame.add_paragraph()
        below.text, below.level = "bullet b", 1
        slide.notes_slide.notes_text_frame.text = f"Speaker note {number}"
    slide = made.slides.add_slide(made.slide_layouts[5])
    slide.shapes.title.text = "Table slide"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for row, cells in enumerate((("Key", "Value"), ("alpha", "1"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    return _saved(made)


def xlsx(
    *, cell: str | None = None, merge: str | None = None, rows: Sequence[Sequence[Any]] = (("Item", "Price"), ("Rotor", 12.5))
) -> bytes:
    """A visible and a hidden sheet; `cell` puts one far away, `merge` merges a range."""
    from openpyxl import Workbook

    made = Workbook()
    sheet = made.active
    sheet.title = "Prices"
    for row in rows:
        sheet.append(list(row))
    if cell:
        sheet[cell] = "far"
    hidden = made.create_sheet("Hidden")
    hidden["A1"] = "secret"
    hidden.sheet_state = "hidden"
    content = _saved(made)
    if merge:  # by hand: openpyxl would create each cell
        content = rezip(
            content,
            {
                "xl/worksheets/sheet1.xml": lambda xml: xml.replace(
                    b"</sheetData>", b'</sheetData><mergeCells count="1"><mergeCell ref="' + merge.encode() + b'"/></mergeCells>'
                )
            },
        )
    return content


def pdf(*, chapters: int = 4, password: str | None = None) -> bytes:
    """Two columns, numbered headings on two levels, a ruled table, a list, code, running header and page numbers."""
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import (
        BaseDocTemplate,
        Frame,
        ListFlowable,
        ListItem,
        PageTemplate,
        Paragraph,
        Preformatted,
        Spacer,
        Table,
        TableStyle,
    )

    width, height = A4
    styles = getSampleStyleSheet()

    def edges(canvas: Any, document: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(50, height - 30, "RUNNING HEADER")
        canvas.drawCentredString(width / 2, 20, f"page {document.page} of many")

    out = io.BytesIO()
    made = BaseDocTemplate(out, pagesize=A4, title="Declared title", invariant=1, encrypt=password)
    columns = [Frame(50 + side * (width / 2 - 40), 50, width / 2 - 60, height - 110) for side in (0, 1)]
    made.addPageTemplates(PageTemplate(frames=columns, onPage=edges))
    story: list[Any] = [Paragraph("Pump handbook", styles["Title"])]
    for number in range(1, chapters + 1):
        story.append(Paragraph(f"{number} Chapter number {number}", styles["Heading1"]))
        story += [Paragraph(f"Marker {number}.{part} begins. " + SENTENCE * 4, styles["BodyText"]) for part in range(3)]
        if number == 2:
            table = Table([["Part", "Code", "Price"], ["Rotor", "E4711", "12.50"], ["Stator", "E4712", "9.00"]], colWidths=[70, 70, 60])
            table.setStyle(TableStyle([("GRID", (0, 0), (-1, -1), 0.7, colors.black)]))
            story += [table, Spacer(1, 12)]
        if number == 3:
            items = [ListItem(Paragraph(f"point {letter} of the list", styles["BodyText"])) for letter in "abc"]
            story += [ListFlowable(items, bulletType="bullet"), Preformatted("def f(x):\n    return x + 1", styles["Code"])]
        story += [
            Paragraph(f"{number}.1 Section below {number}", styles["Heading2"]),
            Paragraph(f"Deep {number}. " + SENTENCE * 6, styles["BodyText"]),
        ]
    made.build(story)
    return out.getvalue()


def blank_pdf(pages: int = 1) -> bytes:
    """Pages without any text, like a scan."""
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out, invariant=1)
    for _ in range(pages):
        canvas.rect(100, 100, 200, 200, fill=1)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def rezip(content: bytes, changes: dict[str, Any], *, extra: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """The same archive with entries passed through functions, and more entries added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry.filename, changes.get(entry.filename, lambda same: same)(data))
        for name, data in extra:
            target.writestr(name, data)
    return out.getvalue()


def deep_html(depth: int) -> bytes:
    """Divisions in divisions."""
    return b"<html><body>" + b"<div>" * depth + b"words" + b"</div>" * depth + b"</body></html>"


def slow_csv(cells: int) -> bytes:
    """A table that takes long to convert once the limits allow its size."""
    return b"a,b,c,d,e,f,g,h,i,j\n" * (cells // 10)


def _saved(made: Any) -> bytes:
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()
