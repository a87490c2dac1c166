"""The vector index on a Qdrant server: one collection an embedding model, knowledge bases as its tenants.

Every request carries the tenant's filter, and the collection is made for that: no graph over all points (`m=0`), one a tenant
(`payload_m=16`), and `kb` indexed as the tenant key. Vectors lie in files, with one byte a number in memory to search over and the exact
vectors for the last step (`qdrant.on_disk`, `qdrant.quantization`). A metadata field gets its index when a filter first finds something by it,
or when the server demands one (strict mode), up to `qdrant.max_field_indexes`. IDF counts the whole collection, so a server that holds
several knowledge bases may rank keywords a little differently from Edge, where each has its own.

Writes wait until they are applied and logged, and keep their order. On a cluster with replicas a majority acknowledges each write and a
majority is asked for each search, so what was written is found.

Every call goes through the circuit breaker `qdrant` and has a time limit. An unknown collection means an empty space.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from shield.errors import DependencyRejected, DependencyUnavailable, ShieldError
from shield.knowledge.vectors.field_indexes import FieldIndexes
from shield.knowledge.vectors.fusion import fuse, ranked
from shield.knowledge.vectors.payload import (
    DOCUMENT,
    IDENTITY,
    KB,
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
from shield.resilience import Breakers, dependency_error
from shield.settings import QdrantSettings

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

T = TypeVar("T")

SERVICE = "qdrant"
DENSE, SPARSE = "dense", "sparse"
BATCH = 256
"""Points a request."""
_OVERSAMPLING = 2.0
"""How many more candidates than asked for the quantised search hands to the exact comparison."""


class _Refusal(Exception):
    """An answer of the server that is no failure."""


class _NoCollection(_Refusal):
    """The collection was never made, or is gone."""


class _CollectionExists(_Refusal):
    """Somebody else made the collection first."""


class _IndexRequired(_Refusal):
    """The server filters by indexed fields only."""


class QdrantIndex:
    """A `VectorIndex` on the server that the settings name."""

    def __init__(self, settings: QdrantSettings, breakers: Breakers) -> None:
        self._settings = settings
        self._timeout = settings.timeout.total_seconds()
        self._breakers = breakers
        self._opened: AsyncQdrantClient | None = None
        self._ready: set[str] = set()
        self._fields: dict[str, FieldIndexes] = {}

    async def upsert(self, space: SpaceKey, points: Sequence[Point]) -> None:
        """Add or replace points; the collection is made on first use. Applied and logged when this returns."""
        if any(point.dense.shape != (space.dim,) for point in points):
            raise ValueError(f"a vector of this space has {space.dim} numbers")
        for start in range(0, len(points), BATCH):
            await self._write(space, points[start : start + BATCH])

    async def search_dense(self, space: SpaceKey, vector: Vector, *, limit: int, where: VectorFilter | None = None) -> list[ScoredPoint]:
        """Nearest by cosine, best first; the score is the cosine."""
        dense, _ = await self._search(space, vector, None, limit, clauses_of(where))
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
        dense, found = await self._search(space, vector, sparse, prefetch, clauses_of(where))
        return fuse(dense, found, k=rrf_k, limit=limit)

    async def delete_document(self, space: SpaceKey, document_id: UUID, *, keep_revision: int | None = None) -> None:
        """Remove all points of a document, or all but one revision."""
        from qdrant_client import models

        kept = [] if keep_revision is None else [_equals(models, REVISION, keep_revision)]
        await self._delete(space, [_equals(models, DOCUMENT, str(document_id))], kept)

    async def delete_revision(self, space: SpaceKey, document_id: UUID, revision: int) -> None:
        """Remove one revision's points."""
        from qdrant_client import models

        await self._delete(space, [_equals(models, DOCUMENT, str(document_id)), _equals(models, REVISION, revision)], [])

    async def delete_points(self, space: SpaceKey, ids: Sequence[UUID]) -> None:
        """Remove points by their ids."""
        from qdrant_client import models

        if ids:
            await self._delete(space, [models.HasIdCondition(has_id=[str(key) for key in ids])], [])

    async def scan(self, space: SpaceKey, *, document_id: UUID | None = None) -> AsyncIterator[tuple[UUID, Mapping[str, object]]]:
        """Every point's id and payload, in order of id."""
        from qdrant_client import models

        must = [] if document_id is None else [_equals(models, DOCUMENT, str(document_id))]
        where, name = _of_tenant(models, space, must), _collection(space)
        offset: Any = None
        while True:
            try:
                records, offset = await self._call(
                    partial(self._client().scroll, name, where, limit=BATCH, offset=offset, **self._reading())
                )
            except _NoCollection:
                return
            for record in records:
                yield UUID(str(record.id)), fields_of(record.payload or {})
            if offset is None:
                return

    async def count(self, space: SpaceKey) -> int:
        """How many points a space holds; 0 if it was never made."""
        from qdrant_client import models

        where = _of_tenant(models, space)
        try:
            return (await self._call(lambda: self._client().count(_collection(space), count_filter=where, exact=True))).count
        except _NoCollection:
            return 0

    async def drop(self, space: SpaceKey) -> None:
        """Remove all points of a space; the collection stays for the other knowledge bases of its model."""
        await self._delete(space, [], [])

    async def ping(self) -> None:
        """Raise `DependencyUnavailable` if the server does not answer."""
        await self._call(lambda: self._client().get_collections())

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _write(self, space: SpaceKey, points: Sequence[Point]) -> None:
        from qdrant_client import models

        name = _collection(space)
        stored = [
            models.PointStruct(id=str(point.id), vector=_vectors(models, point), payload=payload_of(space, point)) for point in points
        ]
        for _ in range(2):
            try:
                if name not in self._ready:
                    await self._create(name, space.dim)
                await self._call(lambda: self._client().upsert(name, stored, wait=True, ordering=models.WriteOrdering.MEDIUM))
                return
            except _NoCollection:  # somebody removed it since we looked
                self._ready.discard(name)
        raise DependencyUnavailable("The collection keeps disappearing.", service=SERVICE)

    async def _create(self, name: str, dim: int) -> None:
        """Make the collection and its indexes; fine if another process does so at the same moment."""
        from qdrant_client import models

        client = self._client()
        if not await self._call(lambda: client.collection_exists(name)):
            with contextlib.suppress(_CollectionExists):
                await self._call(lambda: client.create_collection(name, **_layout(models, self._settings, dim)))
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        for field, schema in ((KB, tenant), (DOCUMENT, models.PayloadSchemaType.KEYWORD), (REVISION, models.PayloadSchemaType.INTEGER)):
            await self._call(partial(client.create_payload_index, name, field, field_schema=schema, wait=True))
        self._ready.add(name)

    async def _index_fields(self, name: str, clauses: list[Clause], *, required: bool = False) -> None:
        """Index the fields that these clauses filter by, as far as there is room; a filter works without, only slower."""
        from qdrant_client import models

        fields = self._fields.setdefault(name, FieldIndexes(self._settings.max_field_indexes))
        if not (missing := fields.missing(clauses)):
            return
        try:
            fields.known |= (await self._call(lambda: self._client().get_collection(name))).payload_schema.keys()
            for key, kind in fields.take(missing):
                schema = models.PayloadSchemaType(kind)
                await self._call(
                    partial(
                        self._client().create_payload_index,
                        name,
                        key,
                        field_schema=schema,
                        wait=required,
                        ordering=models.WriteOrdering.MEDIUM,
                    )
                )
        except (ShieldError, _Refusal):
            if required:
                raise

    async def _search(
        self, space: SpaceKey, vector: Vector, sparse: SparseVector | None, limit: int, clauses: list[Clause]
    ) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
        from qdrant_client import models

        if limit < 1 or impossible(clauses):
            return [], []
        where = _of_tenant(models, space, [_any_of(models, clause) for clause in clauses])

        def request(query: Any, using: str, params: Any = None) -> Any:
            return models.QueryRequest(query=query, using=using, filter=where, limit=limit, with_payload=IDENTITY, params=params)

        exactly = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING))
        requests = [request(vector.astype(float).tolist(), DENSE, exactly)]
        if sparse is not None and sparse.indices:
            requests.append(request(models.SparseVector(indices=list(sparse.indices), values=list(sparse.values)), SPARSE))
        name = _collection(space)
        ask = partial(self._client().query_batch_points, name, requests, **self._reading())
        try:
            try:
                dense, *rest = await self._call(ask)
            except _IndexRequired:
                await self._index_fields(name, clauses, required=True)
                dense, *rest = await self._call(ask)
        except _NoCollection:
            return [], []
        except _IndexRequired as refusal:
            raise DependencyRejected("The vector index filters by indexed fields only, and has no more room.", service=SERVICE) from refusal
        if clauses and dense.points:
            await self._index_fields(name, clauses)
        return [_hit(point, dense=True) for point in dense.points], [_hit(point) for found in rest for point in found.points]

    async def _delete(self, space: SpaceKey, must: list[Any], must_not: list[Any]) -> None:
        from qdrant_client import models

        selector = models.FilterSelector(filter=_of_tenant(models, space, must, must_not))
        try:
            await self._call(lambda: self._client().delete(_collection(space), selector, wait=True, ordering=models.WriteOrdering.MEDIUM))
        except _NoCollection:
            return

    def _client(self) -> AsyncQdrantClient:
        if self._opened is None:
            from qdrant_client import AsyncQdrantClient

            with warnings.catch_warnings():  # a key over http is common inside a cluster; the chart's network policy guards it
                warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
                self._opened = AsyncQdrantClient(
                    url=self._settings.url,
                    api_key=self._settings.api_key.get_secret_value() if self._settings.api_key else None,
                    timeout=math.ceil(self._timeout),
                    check_compatibility=False,
                    trust_env=False,
                )
        return self._opened

    def _reading(self) -> dict[str, Any]:
        """How reads see what was written: with copies, a majority is asked; it meets the majority that acknowledged the write."""
        from qdrant_client import models

        return {} if self._settings.replicas == 1 else {"consistency": models.ReadConsistencyType.MAJORITY}

    async def _call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Send a request through the breaker and under the time limit; for the breaker, an unknown collection is an answer."""
        answer = await self._breakers.call(SERVICE, lambda: self._answer(request))
        if isinstance(answer, _Refusal):
            raise answer
        return answer

    async def _answer(self, request: Callable[[], Awaitable[T]]) -> T | _Refusal:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            async with asyncio.timeout(self._timeout):
                return await request()
        except UnexpectedResponse as error:
            status = error.status_code or 502
            if status == 404 and b"doesn't exist" in error.content:
                return _NoCollection()
            if status in (400, 409) and b"already exists" in error.content:
                return _CollectionExists()
            if status == 400 and b"Index required but not found" in error.content:
                return _IndexRequired()
            raise dependency_error(SERVICE, status) from error
        except QdrantException as error:  # its only use: 429 with a time to wait
            raise dependency_error(SERVICE, 429, getattr(error, "retry_after_s", None)) from error
        except (ResponseHandlingException, TimeoutError) as error:
            raise DependencyUnavailable("Qdrant does not answer.", service=SERVICE) from error


def _collection(space: SpaceKey) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", space.model.lower())[:40]
    return f"shield_{readable}-{hashlib.sha256(space.model.encode()).hexdigest()[:8]}_{space.dim}"


def _layout(models: Any, settings: QdrantSettings, dim: int) -> dict[str, Any]:
    """How a collection is made; see the module's docstring."""
    layout: dict[str, Any] = {
        "vectors_config": {DENSE: models.VectorParams(size=dim, distance=models.Distance.COSINE, on_disk=settings.on_disk)},
        "sparse_vectors_config": {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=16),
        "on_disk_payload": settings.on_disk,
    }
    if settings.quantization == "int8":
        layout["quantization_config"] = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        )
    if settings.replicas > 1:
        layout |= {"replication_factor": settings.replicas, "write_consistency_factor": settings.replicas // 2 + 1}
    return layout


def _of_tenant(models: Any, space: SpaceKey, must: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
    return models.Filter(must=[_equals(models, KB, str(space.knowledge_base_id)), *must], must_not=list(must_not) or None)


def _equals(models: Any, key: str, value: str | int) -> Any:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _any_of(models: Any, clause: Clause) -> Any:
    conditions = [
        models.FieldCondition(key=condition.key, match=models.MatchAny(any=list(condition.values)))
        if isinstance(condition, Words)
        else models.FieldCondition(key=condition.key, range=models.Range(**asdict(condition.bounds)))
        for condition in clause
    ]
    return models.Filter(should=conditions)


def _vectors(models: Any, point: Point) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: point.dense.astype(float).tolist()}
    if point.sparse.indices:
        vectors[SPARSE] = models.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
    return vectors


def _hit(point: Any, *, dense: bool = False) -> ScoredPoint:
    payload = point.payload
    return ScoredPoint(
        id=UUID(str(point.id)),
        document_id=UUID(payload[DOCUMENT]),
        revision=int(payload[REVISION]),
        ordinal=int(payload[ORDINAL]),
        score=float(point.score),
        similarity=float(point.score) if dense else None,
    )
