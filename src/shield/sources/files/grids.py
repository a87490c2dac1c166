"""Tables from the lines drawn around their cells: pure geometry, top-left origin, in points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TOLERANCE = 2.0
"""Points by which rulings may miss each other."""
MAX_RULINGS = 4000
"""A page with more drawn lines is a drawing; looking for tables in it would cost more than it finds."""


@dataclass(frozen=True)
class Ruling:
    """A straight horizontal or vertical stroke."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def horizontal(self) -> bool:
        """Whether it lies rather than stands."""
        return (self.right - self.left) >= (self.bottom - self.top)


@dataclass(frozen=True)
class Grid:
    """A ruled table: the positions of its column and row lines."""

    columns: tuple[float, ...]
    rows: tuple[float, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.columns[0], self.rows[0], self.columns[-1], self.rows[-1]

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in the table."""
        left, top, right, bottom = self.box
        return left <= x <= right and top <= y <= bottom

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of a point that the table holds."""
        return _slot(self.rows, y), _slot(self.columns, x)


def grids(rulings: Sequence[Ruling]) -> list[Grid]:
    """The tables that crossing rulings form: at least two rows and two columns, 40 x 20 points."""
    if len(rulings) > MAX_RULINGS:
        return []
    found = []
    for cluster in _connected(rulings):
        columns = _positions([(r.left + r.right) / 2 for r in cluster if not r.horizontal])
        rows = _positions([(r.top + r.bottom) / 2 for r in cluster if r.horizontal])
        if len(columns) >= 3 and len(rows) >= 3 and columns[-1] - columns[0] >= 40 and rows[-1] - rows[0] >= 20:
            found.append(Grid(columns, rows))
    return found


def _connected(rulings: Sequence[Ruling]) -> list[list[Ruling]]:
    """Rulings that touch, transitively (sweep from the top, union-find)."""
    parent = list(range(len(rulings)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    order = sorted(range(len(rulings)), key=lambda i: rulings[i].top)
    active: list[int] = []
    for index in order:
        here = rulings[index]
        active = [i for i in active if rulings[i].bottom + TOLERANCE >= here.top]
        for other in active:
            if rulings[other].left <= here.right + TOLERANCE and here.left <= rulings[other].right + TOLERANCE:
                parent[root(other)] = root(index)
        active.append(index)
    clusters: dict[int, list[Ruling]] = {}
    for index, ruling in enumerate(rulings):
        clusters.setdefault(root(index), []).append(ruling)
    return list(clusters.values())


def _positions(values: Iterable[float]) -> tuple[float, ...]:
    """Distinct positions, those within the tolerance merged."""
    merged: list[float] = []
    for value in sorted(values):
        if not merged or value - merged[-1] > TOLERANCE:
            merged.append(value)
    return tuple(merged)


def _slot(edges: Sequence[float], value: float) -> int:
    for index, edge in enumerate(edges[1:-1]):
        if value < edge:
            return index
    return len(edges) - 2
