"""The vector index inside this process: Qdrant Edge, one shard a space, below one directory.

When a write returns it is on disk: Edge logs every operation ahead, and each write ends with a flush. A shard is made under a
temporary name and renamed, and is dropped by renaming, so a crash leaves a whole shard or none; leftovers go at the next start.
Only the owner of the data directory may open it (a second process is refused by the shard's own lock).

Edge holds Python's interpreter lock while it works, so every call goes through one thread and large writes go in parts: the event
loop gets its turn between them. At most `open_shards` shards are open, the least recently used one is closed. What Edge raises
has no type; here it becomes `DependencyUnavailable`, and the shard is opened anew next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from shield.errors import DependencyUnavailable, ShieldError
from shield.knowledge.vectors.fusion import fuse, ranked
from shield.knowledge.vectors.payload import (
    DOCUMENT,
    IDENTITY,
    ORDINAL,
    REVISION,
    Clause,
    Words,
    clauses_of,
    fields_of,
    impossible,
    payload_of,
)
from shield.knowledge.vectors.port import Point, ScoredPoint, SpaceKey, SparseVector, Vector, VectorFilter

T = TypeVar("T")

SERVICE = "qdrant"
DENSE, SPARSE = "dense", "sparse"
BATCH = 64
"""Points written at a time: the other threads of the process stand still meanwhile, some milliseconds."""
PAGE = 256
"""Points read at a time by a scan."""
_NEW, _OLD = ".new", ".old"


class EdgeIndex:
    """A `VectorIndex` below `directory`, which is made on first write."""

    def __init__(self, directory: Path, *, open_shards: int = 32) -> None:
        self._directory = directory
        self._limit = open_shards
        self._open: OrderedDict[SpaceKey, Any] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge")
        self._swept = self._closed = False

    async def upsert(self, space: SpaceKey, points: Sequence[Point]) -> None:
        """Add or replace points; the space is made on first use. On disk when this returns."""
        if any(point.dense.shape != (space.dim,) for point in points):
            raise ValueError(f"a vector of this space has {space.dim} numbers")
        for start in range(0, len(points), BATCH):
            await self._run(self._upsert, space, points[start : start + BATCH])
        if points:
            await self._run(self._flush, space)

    async def search_dense(self, space: SpaceKey, vector: Vector, *, limit: int, where: VectorFilter | None = None) -> list[ScoredPoint]:
        """Nearest by cosine, best first; the score is the cosine."""
        dense, _ = await self._run(self._search, space, vector, None, limit, clauses_of(where))
        return ranked(dense)

    async def search_hybrid(
        self,
        space: SpaceKey,
        vector: Vector,
        sparse: SparseVector,
        *,
        limit: int,
        prefetch: int,
        rrf_k: int,
        where: VectorFilter | None = None,
    ) -> list[ScoredPoint]:
        """Dense and sparse search fused by reciprocal rank; ties are broken by point id."""
        found = await self._run(self._search, space, vector, sparse, prefetch, clauses_of(where))
        return fuse(*found, k=rrf_k, limit=limit)

    async def delete_document(self, space: SpaceKey, document_id: UUID, *, keep_revision: int | None = None) -> None:
        """Remove all points of a document, or all but one revision."""
        await self._run(self._delete, space, document_id, None, keep_revision)

    async def delete_revision(self, space: SpaceKey, document_id: UUID, revision: int) -> None:
        """Remove one revision's points."""
        await self._run(self._delete, space, document_id, revision, None)

    async def delete_points(self, space: SpaceKey, ids: Sequence[UUID]) -> None:
        """Remove points by their ids."""
        await self._run(self._delete_points, space, ids)

    async def scan(self, space: SpaceKey, *, document_id: UUID | None = None) -> AsyncIterator[tuple[UUID, Mapping[str, object]]]:
        """Every point's id and payload, in order of id."""
        offset: UUID | None = None
        while True:
            records, offset = await self._run(self._scroll, space, document_id, offset)
            for record in records:
                yield record
            if offset is None:
                return

    async def count(self, space: SpaceKey) -> int:
        """How many points a space holds; 0 if it was never made."""
        return await self._run(self._count, space)

    async def drop(self, space: SpaceKey) -> None:
        """Remove a space with all its points; no error if it was never made."""
        await self._run(self._drop, space)

    async def ping(self) -> None:
        """Raise `DependencyUnavailable` if the directory cannot be written."""
        await self._run(self._writable, None)

    async def close(self) -> None:
        """Flush and let go; later calls fail, but closing again does not."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_all)
        await asyncio.to_thread(self._thread.shutdown)

    # -- in the thread ------------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[..., T], space: SpaceKey | None, *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work, space, *args)

    def _guarded(self, work: Callable[..., T], space: SpaceKey | None, *args: Any) -> T:
        try:
            return work(space, *args)
        except ShieldError:
            raise
        except BaseException as error:  # Edge raises bare `Exception`, and a Rust panic is not even one
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self._let_go(space)
            raise DependencyUnavailable("The vector index in the data directory failed.", service=SERVICE) from error

    def _shard(self, space: SpaceKey, *, create: bool = False) -> Any | None:
        """The open shard of a space; None if it was never made and is not to be."""
        shard = self._open.get(space)
        if shard is not None:
            self._open.move_to_end(space)
            return shard
        import qdrant_edge as edge

        self._sweep()
        path = self._path(space)
        if not path.is_dir():
            if not create:
                return None
            _make(edge, path, space.dim)
        while len(self._open) >= self._limit:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        self._open[space] = shard = edge.EdgeShard.load(str(path))
        return shard

    def _upsert(self, space: SpaceKey, points: Sequence[Point]) -> None:
        import qdrant_edge as edge

        shard = self._shard(space, create=True)
        assert shard is not None  # noqa: S101  for the type checker
        stored = []
        for point in points:
            vectors: dict[str, Any] = {DENSE: point.dense.astype(float).tolist()}
            if point.sparse.indices:
                vectors[SPARSE] = edge.SparseVector(list(point.sparse.indices), list(point.sparse.values))
            stored.append(edge.Point(str(point.id), vectors, payload_of(space, point)))
        shard.update(edge.UpdateOperation.upsert_points(stored))

    def _flush(self, space: SpaceKey) -> None:
        if shard := self._open.get(space):  # a closed one is flushed
            shard.flush()

    def _search(
        self, space: SpaceKey, vector: Vector, sparse: SparseVector | None, limit: int, clauses: list[Clause]
    ) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
        import qdrant_edge as edge

        shard = self._shard(space)
        if shard is None or limit < 1 or impossible(clauses):
            return [], []
        where = edge.Filter(must=[_any_of(edge, clause) for clause in clauses]) if clauses else None
        queries = [edge.Query.Nearest(vector.astype(float).tolist(), using=DENSE)]
        if sparse is not None and sparse.indices:
            queries.append(edge.Query.Nearest(edge.SparseVector(list(sparse.indices), list(sparse.values)), using=SPARSE))
        requests = [edge.QueryRequest(limit=limit, query=query, filter=where, with_payload=IDENTITY) for query in queries]
        dense, *rest = shard.query_batch(edge.QueryBatchRequest(requests))
        return [_hit(point, dense=True) for point in dense], [_hit(point) for found in rest for point in found]

    def _delete(self, space: SpaceKey, document_id: UUID, revision: int | None, keep: int | None) -> None:
        import qdrant_edge as edge

        shard = self._shard(space)
        if shard is None:
            return

        def of_revision(number: int) -> Any:
            return edge.FieldCondition(REVISION, match=edge.MatchValue(number))

        must: list[Any] = [edge.FieldCondition(DOCUMENT, match=edge.MatchValue(str(document_id)))]
        if revision is not None:
            must.append(of_revision(revision))
        where = edge.Filter(must=must, must_not=[of_revision(keep)] if keep is not None else None)
        shard.update(edge.UpdateOperation.delete_points_by_filter(where))
        shard.flush()

    def _delete_points(self, space: SpaceKey, ids: Sequence[UUID]) -> None:
        import qdrant_edge as edge

        shard = self._shard(space)
        if shard is not None and ids:
            shard.update(edge.UpdateOperation.delete_points([str(key) for key in ids]))
            shard.flush()

    def _scroll(
        self, space: SpaceKey, document_id: UUID | None, offset: UUID | None
    ) -> tuple[list[tuple[UUID, Mapping[str, object]]], UUID | None]:
        import qdrant_edge as edge

        shard = self._shard(space)
        if shard is None:
            return [], None
        where = None
        if document_id is not None:
            where = edge.Filter(must=[edge.FieldCondition(DOCUMENT, match=edge.MatchValue(str(document_id)))])
        records, following = shard.scroll(edge.ScrollRequest(offset=offset, limit=PAGE, filter=where, with_payload=True))
        return [(_uuid(record.id), fields_of(record.payload or {})) for record in records], None if following is None else _uuid(following)

    def _count(self, space: SpaceKey) -> int:
        import qdrant_edge as edge

        shard = self._shard(space)
        return 0 if shard is None else int(shard.count(edge.CountRequest(exact=True)))

    def _drop(self, space: SpaceKey) -> None:
        self._let_go(space)
        path = self._path(space)
        if path.is_dir():
            self._sweep(again=True)
            gone = path.with_name(path.name + _OLD)
            path.rename(gone)
            _sync(self._directory)
            shutil.rmtree(gone)

    def _writable(self, _space: None) -> None:
        existing = next(path for path in (self._directory, *self._directory.parents) if path.exists())
        if not os.access(existing, os.W_OK):
            raise DependencyUnavailable("The directory of the vector index cannot be written.", service=SERVICE)

    def _let_go(self, space: SpaceKey | None) -> None:
        shard = self._open.pop(space, None) if space else None
        if shard is not None:
            with contextlib.suppress(Exception):  # it may be the one that just failed
                shard.close()

    def _close_all(self) -> None:
        while self._open:
            self._let_go(next(iter(self._open)))

    def _path(self, space: SpaceKey) -> Path:
        readable = re.sub(r"[^a-z0-9]+", "-", space.model.lower())[:40]
        model = hashlib.sha256(space.model.encode()).hexdigest()[:8]
        return self._directory / f"{space.knowledge_base_id}_{readable}-{model}_{space.dim}"

    def _sweep(self, *, again: bool = False) -> None:
        """Remove what a crash left half made or half dropped; nobody else works here, we are the only owner."""
        if self._swept and not again:
            return
        for path in _leftovers(self._directory):
            shutil.rmtree(path)
        self._swept = True


def _leftovers(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from [path for path in directory.iterdir() if path.suffix in (_NEW, _OLD)]


def _make(edge: Any, path: Path, dim: int) -> None:
    """An empty shard at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(path.name + _NEW)
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    config = edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        max_search_threads=1,
    )
    shard = edge.EdgeShard.create(str(new), config)
    shard.update(edge.UpdateOperation.create_field_index(DOCUMENT, edge.PayloadSchemaType.Keyword))
    shard.update(edge.UpdateOperation.create_field_index(REVISION, edge.PayloadSchemaType.Integer))
    shard.flush()
    shard.close()
    new.rename(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _any_of(edge: Any, clause: Clause) -> Any:
    conditions = [
        edge.FieldCondition(condition.key, match=edge.MatchAny(list(condition.values)))
        if isinstance(condition, Words)
        else edge.FieldCondition(
            condition.key,
            range=edge.RangeFloat(gte=condition.bounds.gte, gt=condition.bounds.gt, lte=condition.bounds.lte, lt=condition.bounds.lt),
        )
        for condition in clause
    ]
    return edge.Filter(should=conditions)


def _hit(point: Any, *, dense: bool = False) -> ScoredPoint:
    payload = point.payload
    return ScoredPoint(
        id=_uuid(point.id),
        document_id=UUID(payload[DOCUMENT]),
        revision=int(payload[REVISION]),
        ordinal=int(payload[ORDINAL]),
        score=float(point.score),
        similarity=float(point.score) if dense else None,
    )


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))
