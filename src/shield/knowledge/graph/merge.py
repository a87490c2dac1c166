"""LightRAG's merge with its reads and writes in bulk: four queries before it, four after it, instead of a thousand in between.

LightRAG (1.5.7) merges a document entity by entity and relation by relation, each with about ten statements; the merge is what only one
process at a time may do, so its round trips bound how fast a knowledge base can grow. `install` puts a buffer between the merge and
its storages: what the document may touch is read at once, the merge works in memory, and what it changed is written at the end, in
LightRAG's own order (which chunks speak of an entity, then entities, then relations).

Sound because nobody else writes the workspace meanwhile, and no less safe than before: LightRAG has stored what the document may touch
before it calls us, and its status only says `processed` afterwards, so whatever is cut off in here is found and taken out by
the next writer (see `repair.py`). A merge that fails writes nothing. Measured by `make bench-graph`; held by `tests/integration/graph`.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def install() -> None:
    """Let LightRAG's pipeline merge through the buffer."""
    import lightrag.operate
    import lightrag.pipeline

    original = lightrag.operate.merge_nodes_and_edges

    async def merge(chunk_results: list[Any], knowledge_graph_inst: Any, *args: Any, **names: Any) -> None:
        from lightrag.utils import make_relation_chunk_key

        entities, relations = lightrag.operate.collect_kg_merge_candidates(chunk_results)
        graph = Graph(knowledge_graph_inst)
        about = Rows(names.pop("entity_chunks_storage"))
        between = Rows(names.pop("relation_chunks_storage"))
        await graph.load(sorted(entities), sorted(relations))
        await about.load(sorted(entities))
        await between.load(sorted(make_relation_chunk_key(*pair) for pair in relations))
        await original(chunk_results, graph, *args, entity_chunks_storage=about, relation_chunks_storage=between, **names)
        for buffer in (about, between, graph):
            await buffer.flush()

    lightrag.pipeline.merge_nodes_and_edges = merge


class Graph:
    """What a merge asks of the graph's storage, from memory."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._nodes: dict[str, Row | None] = {}
        self._edges: dict[tuple[str, str], Row | None] = {}
        self._new_nodes: dict[str, Row] = {}
        self._new_edges: dict[tuple[str, str], Row] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def load(self, nodes: list[str], edges: list[tuple[str, str]]) -> None:
        """Read what is there of these."""
        self._nodes |= dict.fromkeys(nodes) | await self._storage.get_nodes_batch(nodes)
        found = await self._storage.get_edges_batch([{"src": a, "tgt": b} for a, b in edges])
        self._edges |= dict.fromkeys(map(_pair, edges)) | {_pair(edge): row for edge, row in found.items()}

    async def get_node(self, node_id: str) -> Row | None:
        """An entity's facts."""
        if node_id not in self._nodes:
            await self.load([node_id], [])
        return _copy(self._nodes[node_id])

    async def upsert_node(self, node_id: str, node_data: Row) -> None:
        """Set facts of an entity; others stay."""
        row = (await self.get_node(node_id) or {}) | node_data | {"entity_id": node_id}
        self._nodes[node_id] = self._new_nodes[node_id] = row

    async def has_edge(self, source_node_id: str, target_node_id: str) -> bool:
        """Whether there is a relation."""
        return await self.get_edge(source_node_id, target_node_id) is not None

    async def get_edge(self, source_node_id: str, target_node_id: str) -> Row | None:
        """A relation's facts."""
        pair = _pair((source_node_id, target_node_id))
        if pair not in self._edges:
            await self.load([], [pair])
        return _copy(self._edges[pair])

    async def upsert_edge(self, source_node_id: str, target_node_id: str, edge_data: Row) -> None:
        """Set all facts of a relation."""
        pair = _pair((source_node_id, target_node_id))
        self._edges[pair] = self._new_edges[pair] = dict(edge_data)

    async def flush(self) -> None:
        """Write what has changed: entities first, since relations refer to them."""
        await self._storage.upsert_nodes_batch(list(self._new_nodes.items()))
        await self._storage.upsert_edges_batch([(a, b, row) for (a, b), row in self._new_edges.items()])


class Rows:
    """What a merge asks of a key-value storage, from memory."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._rows: dict[str, Row | None] = {}
        self._new: dict[str, Row] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def load(self, ids: list[str]) -> None:
        """Read what is there of these."""
        self._rows |= zip(ids, await self._storage.get_by_ids(ids), strict=True)

    async def get_by_id(self, id: str) -> Row | None:  # noqa: A002  LightRAG's name
        """A row."""
        if id not in self._rows:
            await self.load([id])
        return _copy(self._rows[id])

    async def upsert(self, data: dict[str, Row]) -> None:
        """Set whole rows."""
        self._rows |= data
        self._new |= data

    async def flush(self) -> None:
        """Write what has changed."""
        if self._new:
            await self._storage.upsert(self._new)


def _pair(names: tuple[str, str]) -> tuple[str, str]:
    return (min(names), max(names))


def _copy(row: Row | None) -> Row | None:
    return None if row is None else dict(row)
