"""Builds the frozen sample set in examples/: a static site, a two-column PDF with a table, a DOCX and a Markdown file.

The results are committed; run this only to change their text. Usage: tools/run python tools/build_examples.py
"""

from __future__ import annotations

from pathlib import Path

from docx import Document
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import cm
from reportlab.platypus import BaseDocTemplate, Frame, FrameBreak, PageTemplate, Paragraph, Spacer, Table, TableStyle

EXAMPLES = Path(__file__).parent.parent / "examples"

Section = tuple[str, list[str]]
PAGES: dict[str, tuple[str, list[Section]]] = {
    "index": (
        "Shield at a glance",
        [
            ("What Shield is", [
                ("HX-Citadel Shield turns web sites and documents into knowledge that agents query over the Model Context Protocol. It runs on your own "
                "machine or in your own cluster, and nothing that you ingest leaves it."),
                "An agent sees thirteen tools. Six of them do the daily work: crawl_web, ingest_doc, qdrant_find, qdrant_store, lightrag_query and get_job_status.",
            ]),
            ("Why answers carry citations", [
                ("Every answer names the source, the heading path, the page and the character offsets of each quotation. A quotation is verbatim: the "
                "stored text between the two offsets is exactly the quoted text."),
                "When nothing that is stored speaks to a question, the answer says found: false instead of inventing something.",
            ]),
        ],
    ),
    "jobs": (
        "Jobs",
        [
            ("Accepted means kept", [
                ("Long work answers at once with a job id and the status pending. The job is a row in PostgreSQL before the answer is sent, so an accepted "
                "job survives the loss of its worker, of the server and of the machine's power."),
                ("When a worker is killed in the middle of a job, its lease lapses after thirty seconds and another worker takes over. Pages that were "
                "fetched are not fetched again, and what was embedded is not embedded again."),
            ]),
            ("Leases and fences", [
                ("A worker holds a job by a lease, which it renews every ten seconds. With each claim the job's fencing token grows, and a write with an "
                "older token is refused, so a paused worker that wakes up can change nothing."),
                "A job has three tries for errors and three for crashes. A job that uses them up fails with the code job.retries_exhausted.",
            ]),
            ("Cancelling and retrying", [
                "Cancelling a job takes effect within one heartbeat. Retrying makes a new job that starts from what the old one finished.",
            ]),
        ],
    ),
    "crawling": (
        "Crawling",
        [
            ("Polite by default", [
                ("The crawler obeys robots.txt, waits 250 milliseconds between two requests to one host and keeps at most two requests to a host in flight. "
                "A Retry-After header of up to two minutes is waited out."),
                "The option max_pages is exact: it counts the addresses for which a page request was sent, whatever the outcome.",
            ]),
            ("Where it may go", [
                ("Every address that a caller gives passes an egress guard. The guard resolves the name once, refuses every address that is not publicly "
                "routable, dials the address it checked, and checks each redirect again."),
                "Private ranges open only through the setting SHIELD_EGRESS_ALLOW, which lists networks together with a port.",
            ]),
        ],
    ),
    "searching": (
        "Searching",
        [
            ("Hybrid search", [
                ("A search combines a dense search by meaning with a BM25 search by words and fuses both rankings by reciprocal rank with k = 60. "
                "So a rare identifier such as the fault code E4711 is found although no sentence resembles it."),
            ]),
            ("The graph", [
                "LightRAG keeps a graph of entities and relations beside the passages. The query modes are naive, local, global, hybrid and mix, and mix is the default.",
                "Without a language model the graph is built by rules and answers are extractive; with one they are generated, and still cited.",
            ]),
        ],
    ),
    "deleting": (
        "Deleting",
        [
            ("Deletion with proof", [
                ("Deleting a document removes its vectors, its part of the graph, cached model answers, uploads and converted text. Afterwards a proof "
                "searches every table, every vector payload and every file for each sentence of at least eight words."),
                "A sentence that another document also holds is reported as shared and kept. The number of hits is part of the job's result.",
            ]),
        ],
    ),
}  # fmt: skip


def site() -> None:
    """Write the static site: pages link each other, so that a crawl finds them all."""
    links = "".join(f'<li><a href="{name}.html">{title}</a></li>' for name, (title, _) in PAGES.items())
    for name, (title, sections) in PAGES.items():
        body = "".join(f"<h2>{heading}</h2>" + "".join(f"<p>{text}</p>" for text in paragraphs) for heading, paragraphs in sections)
        html = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
            f"<body><nav><ul>{links}</ul></nav>\n<main><h1>{title}</h1>{body}</main>\n<footer>HX-Citadel Shield samples</footer></body></html>\n"
        )
        (EXAMPLES / "site" / f"{name}.html").write_text(html, encoding="utf-8")


PDF_SECTIONS: list[Section] = [
    ("Choosing limits", [
        "A knowledge platform lives from its limits. Each limit protects one resource, and each refusal says which limit was met and what to do next.",
        "Files may have 64 MiB and 2 000 pages. Office files are unpacked with care: at most 10 000 entries, 512 MiB in all and a compression ratio of 200.",
        "A conversion runs in a process of its own with three gigabytes of address space. It gets two minutes and one more second for each page, and is then stopped.",
    ]),
    ("Choosing a machine", [
        "The embedded mode needs two processor cores and two gigabytes of memory. Its private PostgreSQL takes about sixty megabytes of that.",
        "Embedding is the dearest step. On two cores the built-in model embeds about fifty short paragraphs in a second, and each text is embedded only once.",
    ]),
    ("Choosing chunk sizes", [
        "A chunk has at most 240 word pieces, because the built-in model reads 256 of them. Longer passages would be cut silently by the model.",
        "Neighbouring chunks of running prose overlap by 32 word pieces. Tables are split by rows, and every part repeats the header row.",
    ]),
]  # fmt: skip

PDF_TABLE = [
    ["Resource", "Limit", "Error code"],
    ["Page", "8 MiB", "page.too_large"],
    ["File", "64 MiB", "document.too_large"],
    ["Workbook", "1 000 000 cells", "document.too_many_pages"],
    ["Inline content", "1 MiB", "document.inline_invalid"],
    ["Job", "24 hours", "job.deadline_exceeded"],
]


def pdf() -> None:
    """Write a two-column PDF with a ruled table."""
    styles = getSampleStyleSheet()
    body = ParagraphStyle("body", parent=styles["BodyText"], fontSize=11, leading=15, spaceAfter=7)
    heading = ParagraphStyle("heading", parent=styles["Heading2"], fontSize=14, leading=18, spaceBefore=8, spaceAfter=4)
    title = ParagraphStyle("title", parent=styles["Title"], fontSize=20, leading=24)
    width, height = A4
    column, gap, margin = (width - 5 * cm) / 2, 1 * cm, 2 * cm
    frames = [Frame(margin + i * (column + gap), margin, column, height - 2 * margin, id=f"column{i}") for i in range(2)]
    story: list[object] = [Paragraph("Operating limits of Shield", title), Spacer(1, 6)]
    for name, paragraphs in PDF_SECTIONS:
        if name == "Choosing chunk sizes":
            story.append(FrameBreak())
        story.append(Paragraph(name, heading))
        story.extend(Paragraph(text, body) for text in paragraphs)
    story.append(Paragraph("Limits and their errors", heading))
    table = Table(PDF_TABLE, colWidths=[2.1 * cm, 2.3 * cm, 3.6 * cm])
    table.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.7, colors.black),
                ("FONTSIZE", (0, 0), (-1, -1), 7),
                ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
            ]
        )
    )
    story.append(table)
    document = BaseDocTemplate(str(EXAMPLES / "operating-limits.pdf"), pagesize=A4, title="Operating limits of Shield", invariant=1)
    document.addPageTemplates([PageTemplate(id="two-columns", frames=frames)])
    document.build(story)


def docx() -> None:
    """Write a DOCX with headings, a list and a table."""
    document = Document()
    document.add_heading("Team handbook: working with Shield", level=1)
    document.add_heading("Who does what", level=2)
    document.add_paragraph(
        "Platform engineers install Shield, watch its service levels and decide which hosts may be crawled. People who build agents point an MCP client "
        "at the server and choose a knowledge base for each subject."
    )
    document.add_heading("Naming knowledge bases", level=2)
    document.add_paragraph(
        "A knowledge base has a short name of lower-case letters, digits and hyphens, such as team-handbook. The base named default exists from the start; "
        "every other one is created explicitly, so that a typing mistake cannot create one."
    )
    for item in (
        "One knowledge base a subject, not one a person.",
        "No secrets in a knowledge base: whoever may query it may read all of it.",
    ):
        document.add_paragraph(item, style="List Bullet")
    document.add_heading("Reaction times", level=2)
    table = document.add_table(rows=1, cols=3)
    for cell, text in zip(table.rows[0].cells, ("Severity", "Example", "First reaction"), strict=True):
        cell.text = text
    for row in (
        ("Critical", "No query is answered", "15 minutes"),
        ("High", "Jobs wait for an hour", "1 hour"),
        ("Low", "A page was not found", "Next working day"),
    ):
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.save(str(EXAMPLES / "team-handbook.docx"))


MARKDOWN = """# Connecting an agent

## Over HTTP

Point the client at `http://127.0.0.1:8000/mcp`. The transport is streamable HTTP without sessions, so any number of clients may come and go.

## Over standard input and output

Run `shield mcp --stdio`. If a server already owns the data directory, the command talks to it; otherwise it becomes the owner for its own life.

## A first conversation

1. Call `crawl_web` with the address of a site. The answer holds a `job_id` at once.
2. Call `get_job_status` with that id and `wait_seconds` of up to 45 until the status is `completed`.
3. Call `lightrag_query` with a question. Each citation names its source and its exact place.

## When a call fails

Every error has a stable code, a sentence, an advice and the flag `retryable`. An agent should follow the advice, and repeat a call only when `retryable` is true.
"""


def main() -> None:
    """Build everything."""
    (EXAMPLES / "site").mkdir(parents=True, exist_ok=True)
    site()
    pdf()
    docx()
    (EXAMPLES / "connecting-an-agent.md").write_text(MARKDOWN, encoding="utf-8")


if __name__ == "__main__":
    main()
