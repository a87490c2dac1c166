"""The benchmark's figures are counted and written down rightly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.operator.load import quantile
from tests.bench.operator.measure import Line
from tests.bench.operator.report import markers, section, write


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)])
def test_a_quantile_is_the_smallest_value_that_the_share_does_not_pass(share: float, value: float) -> None:
    assert quantile([float(number) for number in range(1, 101)], share) == value


def test_of_nothing_a_quantile_is_nothing() -> None:
    assert quantile([], 0.99) == 0.0


def test_the_section_is_put_between_its_markers_and_only_there(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    (first, last), (other, _) = markers("latency"), markers("many")
    file.write_text(f"before\n{first}\nold\n{last}\nafter {other}\n")
    write(file, "latency", section([Line("CR → Job", "p99 9 ms", "< 100 ms", met=True, with_="operator 0.2")], "make bench-operator"))
    text = file.read_text()
    assert text.startswith(f"before\n{first}\n`make bench-operator`")
    assert text.endswith(f"{last}\nafter {other}\n")
    assert "| CR → Job | p99 9 ms | < 100 ms | yes | operator 0.2 |" in text
    assert "old" not in text


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("nothing here")
    with pytest.raises(ValueError, match="no place"):
        write(file, "latency", "figures")
    assert file.read_text() == "nothing here"
