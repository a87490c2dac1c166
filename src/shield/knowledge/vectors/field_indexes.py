"""Which metadata fields of a collection have an index of their own; a bounded number of them gets one.

Anybody may send any metadata, and anybody may filter by any name, so neither may decide alone how many indexes a server keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shield.knowledge.vectors.payload import DOCUMENT, IDENTITY, KB, REVISION, Clause, Words

_OWN = frozenset({KB, DOCUMENT, REVISION})


class FieldIndexes:
    """What one process knows of one collection."""

    def __init__(self, limit: int) -> None:
        self.known: set[str] = set()
        """Fields that are indexed."""
        self._limit = limit

    def missing(self, clauses: Sequence[Clause]) -> dict[str, str]:
        """The fields of the clauses that are not known to be indexed, with the kind of index; none once there is no more room."""
        if len(self.known - _OWN) >= self._limit:
            return {}
        kinds = {condition.key: "keyword" if isinstance(condition, Words) else "float" for clause in clauses for condition in clause}
        return {key: kind for key, kind in kinds.items() if key not in self.known and key not in IDENTITY}

    def take(self, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Those that are still not indexed and for which there is room; each is known as soon as the next is asked for."""
        for key, kind in wanted.items():
            if key not in self.known and len(self.known - _OWN) < self._limit:
                yield key, kind
                self.known.add(key)
