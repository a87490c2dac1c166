"""PDF without model weights: Docling's pipeline with layout and tables from the page's own geometry.

Docling assigns text to regions, orders them (columns included) and levels the headings; the two stages that normally need
downloaded models are replaced: `Layout` labels lines by their height, font and place, `RuledTables` reads tables from the
lines drawn around their cells. Known limits: tables without rulings come as text, and running headers are recognised by
their place at the edge of the page only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shield.sources.files.grids import TOLERANCE, Grid, Ruling, grids

HEADING_RATIO = 1.22
"""A line this much taller than the body's is a heading."""
EDGE = 0.055
"""Share of the page's height, at top and bottom, that holds running headers and footers."""
LINE_GAP = 1.18
"""A step down of up to this many line pitches continues a block."""

_BULLET = re.compile("^[\u2022\u00b7\u2023\u25aa\u25cf\u25cb\u25e6\u2013\u2014*-]\\s+\\S")
_ENUMERATED = re.compile(r"^(?:\(?[0-9]{1,3}[.)]|\(?[a-z][.)])\s+\S")
_BOLD = re.compile(r"bold|black|heavy|semibold|demi|medium|cmbx", re.IGNORECASE)
_MONO = re.compile(r"mono|courier|consol|typewriter|cmtt|code", re.IGNORECASE)
_LEADERS = re.compile(r"(?:\. ?){5,}")
_NAMELESS = re.compile(r"^/?[A-Z]{1,3}\d{0,4}$")


@dataclass(frozen=True)
class Line:
    """A line of text with its box (top-left origin, points) and font."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    font: str

    @property
    def height(self) -> float:
        """Rounded to half a point, so that one font has one height."""
        return round((self.bottom - self.top) * 2) / 2


@dataclass
class Style:
    """What the body text looks like, weighted by characters, over the pages seen so far."""

    heights: Counter[float] = field(default_factory=Counter)
    fonts: Counter[str] = field(default_factory=Counter)
    widths: dict[str, set[float]] = field(default_factory=dict)
    """Of each font, the widths of a character in ems; a fixed-pitch font has one."""

    def learn(self, lines: Sequence[Line]) -> None:
        """Count a page's lines."""
        for line in lines:
            self.heights[line.height] += len(line.text)
            self.fonts[line.font] += len(line.text)
            if len(line.text) >= 6:
                em = (line.right - line.left) / len(line.text) / max(line.bottom - line.top, 1)
                self.widths.setdefault(line.font, set()).add(round(em, 2))

    @property
    def height(self) -> float:
        """The body's line height."""
        return self.heights.most_common(1)[0][0] if self.heights else 0.0

    @property
    def font(self) -> str:
        """The body's font."""
        return self.fonts.most_common(1)[0][0] if self.fonts else ""

    def fixed_pitch(self, font: str) -> bool:
        """Whether a font looks like one for code, by its name or, where the file hides it, by its widths."""
        return bool(_MONO.search(font)) or (bool(_NAMELESS.match(font)) and len(self.widths.get(font, ())) == 1)

    def bold(self, font: str) -> bool:
        """Whether a font stands out from the body's; a font without a telling name does if it is another one."""
        return font != self.font and bool(_BOLD.search(font) or _NAMELESS.match(font))


def label(line: Line, style: Style, page_height: float) -> str:
    """What a line is, as one of Docling's labels: section_header, list_item, code, page_header, page_footer or text."""
    text = line.text.strip()
    if line.bottom < EDGE * page_height:
        return "page_header"
    if line.top > (1 - EDGE) * page_height:
        return "page_footer"
    if line.font != style.font and style.fixed_pitch(line.font):
        return "code"
    if _LEADERS.search(text):  # a line of a table of contents
        return "text"
    if _BULLET.match(text):
        return "list_item"
    tall = line.height >= HEADING_RATIO * style.height and len(text) <= 120
    stands_out = style.bold(line.font) and line.height >= 0.9 * style.height and len(text) < 80
    if (tall or stands_out) and not text.endswith((".", ",", ";")) and any(c.isalpha() for c in text):
        return "section_header"
    return "list_item" if _ENUMERATED.match(text) else "text"


@dataclass
class Group:
    """Lines that belong together, under one label."""

    label: str
    lines: list[Line]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return (
            min(line.left for line in self.lines),
            min(line.top for line in self.lines),
            max(line.right for line in self.lines),
            max(line.bottom for line in self.lines),
        )


def group(lines: Sequence[Line], style: Style, page_height: float) -> list[Group]:
    """Join lines into blocks: a line continues the nearest block right above it that it overlaps and resembles."""
    ordered = sorted(lines, key=lambda line: (line.top, line.left))
    pitch = _pitch(ordered) or style.height * 1.2
    groups: list[Group] = []
    open_: list[Group] = []
    for line in ordered:
        kind = label(line, style, page_height)
        open_ = [g for g in open_ if line.top - g.lines[-1].bottom <= pitch]
        above = [g for g in open_ if _continues(line, kind, g, pitch)]
        if above:
            max(above, key=lambda g: g.lines[-1].bottom).lines.append(line)
        else:
            new = Group(kind, [line])
            groups.append(new)
            open_.append(new)
    return groups


def _continues(line: Line, kind: str, block: Group, pitch: float) -> bool:
    last = block.lines[-1]
    step = line.bottom - last.bottom
    overlap = min(line.right, last.right) - max(line.left, last.left)
    same = kind == block.label and kind in {"text", "section_header"}
    hanging = kind == "text" and block.label == "list_item" and line.left >= block.lines[0].left - TOLERANCE
    if not (same or hanging) or overlap <= 0 or abs(line.height - last.height) > 0.15 * max(line.height, last.height):
        return False
    return 0 < step <= LINE_GAP * max(pitch, line.height if kind == "section_header" else 0)


def _pitch(ordered: Sequence[Line]) -> float:
    """The most frequent distance between a line and the next one below it in the same column."""
    steps: Counter[float] = Counter()
    for index, line in enumerate(ordered):
        for below in ordered[index + 1 : index + 8]:
            if below.top > line.top + 1 and min(line.right, below.right) > max(line.left, below.left):
                steps[round((below.bottom - line.bottom) * 2) / 2] += 1
                break
    return steps.most_common(1)[0][0] if steps else 0.0


def _lines(page: Any) -> list[Line]:
    found = []
    for cell in page.parsed_page.textline_cells:
        if cell.text.strip():
            box = cell.rect.to_bounding_box()
            found.append(Line(cell.text, box.l, box.t, box.r, box.b, getattr(cell, "font_name", "")))
    return found


def _rulings(page: Any) -> list[Ruling]:
    boxes = [*(page._shape_lines or ()), *(page._backend.get_thin_shape_boxes(max_thickness=TOLERANCE) or ())]  # noqa: SLF001 - Docling's own stages read these
    return [Ruling(box.l, min(box.t, box.b), box.r, max(box.t, box.b)) for box in boxes]


class Layout:
    """Docling's layout stage without a model."""

    def __init__(self) -> None:
        self._document: Any = None
        self._style = Style()

    def __call__(self, conv_res: Any, pages: Iterable[Any]) -> Iterator[Any]:
        """Set `predictions.layout` of every page."""
        if self._document is not conv_res:
            self._document, self._style = conv_res, Style()
        for page in pages:
            if page._backend is not None and page._backend.is_valid():  # noqa: SLF001
                page.predictions.layout = self._predict(page)
            yield page

    def _predict(self, page: Any) -> Any:
        from docling.datamodel.base_models import Cluster, LayoutPrediction
        from docling_core.types.doc import BoundingBox, DocItemLabel

        tables = grids(_rulings(page))
        lines = [
            line
            for line in _lines(page)
            if not any(grid.holds((line.left + line.right) / 2, (line.top + line.bottom) / 2) for grid in tables)
        ]
        self._style.learn(lines)
        lines = self._settle_fonts(page, lines)
        regions = [("table", grid.box) for grid in tables]
        regions += [(block.label, block.box) for block in group(lines, self._style, page.size.height)]
        return LayoutPrediction(
            clusters=[
                Cluster(id=index, label=DocItemLabel(name), bbox=BoundingBox(l=left, t=top, r=right, b=bottom))
                for index, (name, (left, top, right, bottom)) in enumerate(regions)
            ]
        )

    def _settle_fonts(self, page: Any, lines: list[Line]) -> list[Line]:
        """A line has the font of its first word; prose that starts with a word of code gets the font of its most letters."""
        mono = [line for line in lines if line.font != self._style.font and self._style.fixed_pitch(line.font)]
        if not mono:
            return lines
        words = [(word.rect.to_bounding_box(), word) for word in page.parsed_page.word_cells]
        settled: dict[Line, Line] = {}
        for line in mono:
            fonts: Counter[str] = Counter()
            for box, word in words:
                if line.top <= (box.t + box.b) / 2 <= line.bottom and line.left <= (box.l + box.r) / 2 <= line.right:
                    fonts[word.font_name] += len(word.text)
            if fonts:
                settled[line] = replace(line, font=fonts.most_common(1)[0][0])
        return [settled.get(line, line) for line in lines]


class RuledTables:
    """Docling's table stage without a model: words go into the cell that holds their centre."""

    def __call__(self, conv_res: Any, pages: Iterable[Any]) -> Iterator[Any]:
        """Set `predictions.tablestructure` of every page."""
        from docling.datamodel.base_models import TableStructurePrediction

        for page in pages:
            if page._backend is not None and page._backend.is_valid() and page.predictions.layout:  # noqa: SLF001
                clusters = [cluster for cluster in page.predictions.layout.clusters if cluster.label == "table"]
                found = grids(_rulings(page)) if clusters else []
                page.predictions.tablestructure = TableStructurePrediction(
                    table_map={cluster.id: _table(page, cluster, _nearest(cluster, found)) for cluster in clusters}
                )
            yield page


def _nearest(cluster: Any, found: Sequence[Grid]) -> Grid:
    return min(found, key=lambda grid: abs(grid.columns[0] - cluster.bbox.l) + abs(grid.rows[0] - cluster.bbox.t))


def _table(page: Any, cluster: Any, grid: Grid) -> Any:
    from docling.datamodel.base_models import Table
    from docling_core.types.doc import TableCell

    words: dict[tuple[int, int], list[str]] = {}
    for word in page.parsed_page.word_cells or page.parsed_page.textline_cells:
        box = word.rect.to_bounding_box()
        x, y = (box.l + box.r) / 2, (box.t + box.b) / 2
        if grid.holds(x, y):
            words.setdefault(grid.cell(x, y), []).append(word.text)
    cells = [
        TableCell(
            text=" ".join(words.get((row, column), [])),
            start_row_offset_idx=row,
            end_row_offset_idx=row + 1,
            start_col_offset_idx=column,
            end_col_offset_idx=column + 1,
            column_header=row == 0,
        )
        for row in range(len(grid.rows) - 1)
        for column in range(len(grid.columns) - 1)
    ]
    return Table(
        label=cluster.label,
        id=cluster.id,
        text="",
        otsl_seq=[],
        table_cells=cells,
        num_rows=len(grid.rows) - 1,
        num_cols=len(grid.columns) - 1,
        cluster=cluster,
        page_no=page.page_no,
    )


class _NoOcr:
    def __call__(self, conv_res: Any, pages: Iterable[Any]) -> Iterator[Any]:
        yield from pages


def pdf_option() -> Any:
    """Docling's format option for PDF with this pipeline; bounded queues keep 600 pages under 750 MB."""
    from docling.datamodel.backend_options import ThreadedDoclingParseBackendOptions
    from docling.datamodel.pipeline_options import HeadingHierarchyOptions, LayoutPostprocessorOptions, ThreadedPdfPipelineOptions
    from docling.document_converter import PdfFormatOption
    from docling.models.stages.form_field.form_field_model import PdfFormFieldModel
    from docling.models.stages.heading_hierarchy.heading_hierarchy_model import HeadingHierarchyModel
    from docling.models.stages.layout.layout_postprocessing_model import LayoutPostprocessingModel
    from docling.models.stages.page_assemble.page_assemble_model import PageAssembleModel, PageAssembleOptions
    from docling.models.stages.page_preprocessing.page_preprocessing_model import PagePreprocessingModel, PagePreprocessingOptions
    from docling.models.stages.reading_order.readingorder_model import ReadingOrderModel, ReadingOrderOptions
    from docling.pipeline.standard_pdf_pipeline import StandardPdfPipeline

    class NoRaster(PagePreprocessingModel):  # type: ignore[misc]
        def _populate_page_images(self, page: Any) -> Any:
            return page

    class HeuristicPdfPipeline(StandardPdfPipeline):  # type: ignore[misc]
        def _init_models(self) -> None:
            self.keep_images = self.keep_backend = False
            self.preprocessing_model = NoRaster(options=PagePreprocessingOptions(images_scale=None, capture_reading_order_separators=True))
            self.ocr_model, self.layout_model, self.table_model = _NoOcr(), Layout(), RuledTables()
            self.layout_postprocessing_model = LayoutPostprocessingModel(options=LayoutPostprocessorOptions())
            self.form_field_model = PdfFormFieldModel(enabled=False)
            self.assemble_model = PageAssembleModel(options=PageAssembleOptions())
            self.reading_order_model = ReadingOrderModel(options=ReadingOrderOptions(use_page_separators=True))
            self.heading_hierarchy_model = HeadingHierarchyModel(options=self.pipeline_options.heading_hierarchy_options)

    return PdfFormatOption(
        pipeline_cls=HeuristicPdfPipeline,
        pipeline_options=ThreadedPdfPipelineOptions(
            do_ocr=False,
            do_table_structure=False,
            generate_parsed_pages=False,
            queue_max_size=8,
            heading_hierarchy_options=HeadingHierarchyOptions(enabled=True),
            batch_polling_interval_seconds=0.01,
        ),
        # Without rendering, Docling does not decode shapes, and every table would be lost.
        backend_options=ThreadedDoclingParseBackendOptions(render_pages=True, render_scale=0.1, parser_threads=1, max_concurrent_results=4),
    )
