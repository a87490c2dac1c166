"""Layout from geometry alone: what a line is, what belongs together, where a table is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield.sources.files.grids import MAX_RULINGS, Ruling, grids
from shield.sources.files.pdf import Line, Style, group, label

PAGE = 800.0


def a_line(
    text: str = "words of the body text go on",
    *,
    top: float = 400,
    left: float = 50,
    width: float = 200,
    height: float = 10,
    font: str = "/Times",
) -> Line:
    return Line(text, left, top, left + width, top + height, font)


@pytest.fixture
def style() -> Style:
    found = Style()
    found.learn([a_line(top=100 + 12 * number) for number in range(20)])
    return found


class TestLabel:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (a_line(), "text"),
            (a_line("2 Installation", height=13), "section_header"),
            (a_line("Bold and short", font="/Times-Bold"), "section_header"),
            (a_line("Bold, but a sentence.", font="/Times-Bold"), "text"),
            (a_line("B" * 90, font="/Times-Bold"), "text"),
            (a_line("1234 5678", height=14), "text"),
            (a_line("• an item"), "list_item"),
            (a_line("- an item", height=14), "list_item"),
            (a_line("1. an item"), "list_item"),
            (a_line("x = 1", font="/Courier"), "code"),
            (a_line("1 Introduction . . . . . . . . . . 4", height=14), "text"),
            (a_line("Running header", top=10), "page_header"),
            (a_line("page 3", top=785), "page_footer"),
        ],
    )
    def test_a_line_is_told_by_height_font_and_place(self, line: Line, expected: str, style: Style) -> None:
        assert label(line, style, PAGE) == expected

    def test_a_nameless_font_of_one_width_is_code(self, style: Style) -> None:
        lines = [a_line(text, width=6 * len(text), font="/F3") for text in ("def f(x):", "return x + 1")]
        style.learn(lines)
        assert {label(line, style, PAGE) for line in lines} == {"code"}


class TestGroup:
    def test_lines_under_each_other_are_a_paragraph_and_a_gap_ends_it(self, style: Style) -> None:
        lines = [a_line(top=top) for top in (100, 112, 124, 160, 172)]
        assert [len(block.lines) for block in group(lines, style, PAGE)] == [3, 2]

    def test_columns_stay_apart(self, style: Style) -> None:
        lines = [a_line(top=100 + 12 * row, left=left) for row in range(4) for left in (50, 320)]
        assert sorted(block.box[0] for block in group(lines, style, PAGE)) == [50, 320]

    def test_a_list_item_takes_its_continuation(self, style: Style) -> None:
        lines = [a_line("• first item that is", top=100), a_line("long", top=112, left=60), a_line("• second", top=124)]
        assert [[line.text for line in block.lines] for block in group(lines, style, PAGE)] == [
            ["• first item that is", "long"],
            ["• second"],
        ]

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.floats(0, 800), st.floats(0, 500), st.floats(1, 300), st.floats(1, 40)), max_size=40))
    def test_every_line_is_in_exactly_one_group(self, boxes: list[tuple[float, float, float, float]]) -> None:
        lines = [Line(str(n), left, top, left + width, top + height, "/F") for n, (top, left, width, height) in enumerate(boxes)]
        style = Style()
        style.learn(lines)
        assert sorted(line.text for block in group(lines, style, PAGE) for line in block.lines) == sorted(line.text for line in lines)


def ruled(columns: tuple[float, ...], rows: tuple[float, ...]) -> list[Ruling]:
    return [Ruling(columns[0], y, columns[-1], y) for y in rows] + [Ruling(x, rows[0], x, rows[-1]) for x in columns]


class TestGrids:
    def test_crossing_rulings_are_a_table(self) -> None:
        (grid,) = grids(ruled((50, 120, 200), (100, 120, 140)))
        assert (grid.columns, grid.rows) == ((50, 120, 200), (100, 120, 140))
        assert grid.cell(60, 110) == (0, 0)
        assert grid.cell(199, 139) == (1, 1)

    def test_two_tables_on_a_page_are_two(self) -> None:
        assert len(grids(ruled((50, 120, 200), (100, 120, 140)) + ruled((300, 350, 400), (500, 520, 540)))) == 2

    def test_lines_that_almost_meet_are_one(self) -> None:
        (grid,) = grids([*ruled((50, 120, 200), (100, 120, 140)), Ruling(50, 100.9, 200, 100.9)])
        assert grid.rows == (100, 120, 140)

    @pytest.mark.parametrize("columns", [(50, 200), (50, 60, 70)])
    def test_a_frame_or_a_tiny_grid_is_no_table(self, columns: tuple[float, ...]) -> None:
        assert grids(ruled(columns, (100, 120, 140))) == []

    def test_a_drawing_is_not_searched(self) -> None:
        assert grids([Ruling(0, n, 10, n) for n in range(MAX_RULINGS + 1)]) == []
