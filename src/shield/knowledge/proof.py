"""The proof of a deletion: looking everywhere for what was deleted.

Where to look comes from PostgreSQL's catalogue, so a table that somebody adds tomorrow (or LightRAG makes by itself) is searched
without being named here; beside it every payload of the knowledge base's vector collections, and every file of the data directory outside
PostgreSQL's own. What is looked for: each sentence of eight words or more, and the document's provenance: its id anywhere, its source as a whole value,
and its key in the graph if no other document shares it.

A sentence that another document holds is kept, and counted as shared. Left out by name, with the reason: the rows of the document
itself that the deletion removes right after the search (`deletion.py`), what a job that has not ended still carries (it is not
knowledge yet), and, for the provenance only, the books that say what jobs did. Files are searched for sentences only: the vector
index's own files name removed points until it is optimised, as PostgreSQL's hold dead rows until VACUUM.

Cost: one read of the whole database, at most one batch of rows in memory; nothing is locked.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.knowledge.needles import Needles, all_strings
from shield.knowledge.vectors.port import SpaceKey, VectorIndex

BOOKS = frozenset({"jobs", "job_outcomes", "crawl_pages", "audit_records", "deletion_proofs"})
"""Tables that may name a document that is gone: what jobs did and who asked for it."""

_NAMES_OTHERS = frozenset({"documents", "web_pages"})
"""Tables whose rows may rightly name the same address: another base's document, a page that links to it."""

_ENDED_JOBS = "job_id IN (SELECT id FROM jobs WHERE status IN ('completed', 'failed', 'cancelled'))"
_LEFT_OUT = {
    "documents": "id <> ALL(:own)",
    "document_revisions": "document_id <> ALL(:own)",
    "jobs": "status IN ('completed', 'failed', 'cancelled')",
    "crawl_pages": _ENDED_JOBS,
    "uploads": _ENDED_JOBS,
    "upload_parts": f"upload_id IN (SELECT id FROM uploads WHERE {_ENDED_JOBS})",  # noqa: S608
}
_CATALOGUE = sql("""
    SELECT n.nspname, c.relname, a.attname, t.typname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
      AND t.typcategory NOT IN ('N', 'B', 'D', 'T', 'G', 'V', 'E') AND t.typname NOT IN ('vector', 'halfvec', 'sparsevec')
    ORDER BY 1, 2, a.attnum
""")
_ROWS = 20
_BLOCK, _OVERLAP = 1024**2, 16 * 1024
_POSTGRES_DIRECTORY = "pg"


@dataclass(frozen=True)
class Mark:
    """The provenance of a document."""

    document_id: UUID
    source: str
    graph_keys: tuple[str, ...] = ()
    """Those that no other document shares."""


@dataclass(frozen=True)
class Proof:
    """What was looked for and what was found; `hits` is 0 when the document is gone."""

    document_id: UUID
    sentences_checked: int
    sentences_shared: int
    hits: int
    stores: dict[str, Any] = field(default_factory=dict)
    """How much was searched, and `found`: where the hits are."""
    seconds: float = 0.0


@dataclass
class Findings:
    """What a search found, before shared sentences are told apart."""

    pieces: dict[str, Counter[str]] = field(default_factory=dict)
    provenance: dict[UUID, Counter[str]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """Pieces that other documents hold."""
    searched: Counter[str] = field(default_factory=Counter)

    def note(self, place: str, pieces: set[str], marks: set[UUID]) -> None:
        """Add what one value holds."""
        for piece in pieces:
            self.pieces.setdefault(piece, Counter())[place] += 1
        for mark in marks:
            self.provenance.setdefault(mark, Counter())[place] += 1


class Prover:
    """Looks for a set of documents in every store; one use."""

    def __init__(self, needles: Needles, marks: Sequence[Mark]) -> None:
        self._needles = needles
        self._marks = marks
        self._ids = {form: mark.document_id for mark in marks for form in (str(mark.document_id), mark.document_id.hex)}
        self._keys = {key: mark.document_id for mark in marks for key in mark.graph_keys}
        self._sources = {mark.source: mark.document_id for mark in marks}
        self._quoted = {json.dumps(mark.source, ensure_ascii=False): mark.document_id for mark in marks}
        self._findings = Findings()

    async def prove(self, engine: AsyncEngine, vectors: VectorIndex, spaces: Sequence[SpaceKey], data_dir: Path | None) -> list[Proof]:
        """Search everything, `spaces` among it; one proof a document, in the order of the marks."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        with database_errors():
            await self._database(engine)
            for space in spaces:
                await self._vectors(vectors, space)
            if data_dir is not None:
                await asyncio.to_thread(self._files, data_dir)
            if self._findings.pieces.keys() - self._findings.held:
                await self._database(engine, only="document_revisions")  # another document may have come in the meantime
        seconds = round(loop.time() - started, 3)
        return [self._verdict(mark, seconds) for mark in self._marks]

    def _verdict(self, mark: Mark, seconds: float) -> Proof:
        owner, findings = mark.document_id, self._findings
        found = Counter(findings.provenance.get(owner, {}))
        for piece, places in findings.pieces.items():
            if piece not in findings.held and owner in self._needles.owners(piece):
                found.update(places)
        checked, shared = self._needles.sentences(owner), self._needles.sentences_with(owner, findings.held)
        stores = {**dict(sorted(findings.searched.items())), "found": dict(sorted(found.items()))}
        return Proof(owner, checked, shared, found.total(), stores, seconds)

    # -- PostgreSQL ---------------------------------------------------------------------------------------------------

    async def _database(self, engine: AsyncEngine, *, only: str | None = None) -> None:
        async with engine.connect() as connection:
            catalogue = (await connection.execute(_CATALOGUE)).all()
            preparer = connection.dialect.identifier_preparer
        tables: dict[tuple[str, str], list[Any]] = {}
        for row in catalogue:
            tables.setdefault((row.nspname, row.relname), []).append(row)
        for (schema, table), columns in tables.items():
            if only is not None and table != only:
                continue
            names = [_name(preparer, column.attname) for column in columns]
            chosen = [name if column.typname == "bytea" else f"CAST({name} AS text)" for name, column in zip(names, columns, strict=True)]
            where = f" WHERE {_LEFT_OUT[table]}" if schema == "public" and table in _LEFT_OUT else ""
            # Names come from the catalogue and are quoted; there is no value in this statement.
            statement = f"SELECT {', '.join(chosen)} FROM {_name(preparer, schema)}.{_name(preparer, table)}{where}"  # noqa: S608
            places = [f"{table if schema == 'public' else f'{schema}.{table}'}.{column.attname}" for column in columns]
            if only is None:
                self._findings.searched.update(tables=1, columns=len(columns))
            await self._table(engine, statement, table, places)

    async def _table(self, engine: AsyncEngine, statement: str, table: str, places: Sequence[str]) -> None:
        own = {"own": [mark.document_id for mark in self._marks]} if ":own" in statement else {}
        options = {"yield_per": _ROWS}
        async with engine.connect() as connection, connection.stream(sql(statement), own, execution_options=options) as result:
            async for rows in result.partitions():
                await asyncio.to_thread(self._rows, rows, table, places)

    def _rows(self, rows: Sequence[Any], table: str, places: Sequence[str]) -> None:
        for row in rows:
            for place, value in zip(places, row, strict=True):
                if value is None:
                    continue
                self._findings.searched["values"] += 1
                if isinstance(value, bytes | memoryview):
                    pieces = self._needles.found_in_bytes(bytes(value))
                    marks: set[UUID] = set()
                else:
                    pieces = self._needles.found_in(value)
                    marks = set() if table in BOOKS else self._marked(value, names=table not in _NAMES_OTHERS)
                if table == "document_revisions":
                    self._findings.held |= pieces
                else:
                    self._findings.note(place, pieces, marks)

    # -- the other stores ---------------------------------------------------------------------------------------------

    async def _vectors(self, vectors: VectorIndex, space: SpaceKey) -> None:
        async for _, payload in vectors.scan(space):
            self._findings.searched["points"] += 1
            pieces: set[str] = set()
            marks: set[UUID] = set()
            for value in all_strings(dict(payload)):
                pieces |= self._needles.found_in(value)
                marks |= self._marked(value, names=True)
            self._findings.note("vectors", pieces, marks)

    def _files(self, data_dir: Path) -> None:
        for path in _regular_files(data_dir):
            place = f"files:{path.relative_to(data_dir).parts[0]}"
            self._findings.searched["files"] += 1
            pieces: set[str] = set()
            for block in _blocks(path):
                pieces |= self._needles.found_in_bytes(block)
            self._findings.note(place, pieces, set())

    def _marked(self, value: str, *, names: bool) -> set[UUID]:
        """Whose provenance a value holds; `names=False` leaves out the source, which other bases may have too."""
        marked = {owner for form, owner in self._ids.items() if form in value}
        marked |= {owner for key, owner in self._keys.items() if key in value}
        if names:
            if value in self._sources:
                marked.add(self._sources[value])
            marked |= {owner for form, owner in self._quoted.items() if form in value}
        return marked


def _name(preparer: Any, name: str) -> str:
    return str(preparer.quote_identifier(name)).replace(":", "\\:")  # a colon would begin a parameter


def _regular_files(data_dir: Path) -> Iterator[Path]:
    """Every file of the data directory outside PostgreSQL's, links not followed."""
    for folder, subfolders, names in os.walk(data_dir):
        if Path(folder) == data_dir:
            subfolders[:] = [name for name in subfolders if not name.startswith(_POSTGRES_DIRECTORY)]
        for name in names:
            path = Path(folder, name)
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except FileNotFoundError:
                continue  # gone since it was listed


def _blocks(path: Path) -> Iterator[bytes]:
    """What a file holds, in overlapping blocks; its holes, of which an index's files mostly consist, are not read."""
    try:
        with path.open("rb", buffering=0) as file:
            for start, end in _extents(file.fileno()):
                tail, position = b"", start
                while position < end and (block := os.pread(file.fileno(), min(_BLOCK, end - position), position)):
                    yield tail + block
                    tail, position = block[-_OVERLAP:], position + len(block)
    except FileNotFoundError:
        return


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file that hold data."""
    position, size = 0, os.fstat(descriptor).st_size
    while position < size:
        try:
            position = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # nothing but a hole is left
        end = os.lseek(descriptor, position, os.SEEK_HOLE)
        yield position, end
        position = end
