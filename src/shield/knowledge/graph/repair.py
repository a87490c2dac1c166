"""What a writer that died in the middle leaves in LightRAG's tables, and how it is set right.

LightRAG writes its graph first and the vectors of entities and relations later, in one go. A death in between leaves vectors (and
their text) of entities that have changed or are gone, and since the graph no longer says that anything is missing, LightRAG itself
never looks again. So a new process that follows a disorderly end compares both, within one workspace: rows of documents that
are gone are removed, rows without their entity or relation are removed, and rows that say something else are written again.

Cost: a scan of the workspace's rows, and a vector for each that differs; an orderly graph is left untouched.
"""

from __future__ import annotations

from typing import Any

_OF_DOCUMENTS = (
    ("lightrag_doc_full", "id"),
    ("lightrag_doc_chunks", "full_doc_id"),
    ("lightrag_full_entities", "id"),
    ("lightrag_full_relations", "id"),
)
# LightRAG's ids are MD5 of the names; what it embeds is the name and the description, and for relations the keywords before.
_ENTITIES = """
SELECT n.id AS name, n.properties AS facts FROM lightrag_graph_nodes n
  LEFT JOIN {table} v ON v.workspace = n.workspace AND v.id = 'ent-' || md5(n.id)
 WHERE n.workspace = $1
   AND (v.id IS NULL OR v.file_path IS DISTINCT FROM n.properties->>'file_path'
        OR v.content IS DISTINCT FROM n.id || E'\\n' || (n.properties->>'description'))
"""
_RELATIONS = """
SELECT e.src_id AS source, e.tgt_id AS target, e.properties AS facts FROM lightrag_graph_edges e
  LEFT JOIN {table} v ON v.workspace = e.workspace AND v.id = 'rel-' || md5(e.src_id || e.tgt_id)
 WHERE e.workspace = $1
   AND (v.id IS NULL OR v.file_path IS DISTINCT FROM e.properties->>'file_path'
        OR v.content IS DISTINCT FROM (e.properties->>'keywords') || E'\\t' || e.src_id || E'\\n' || e.tgt_id || E'\\n' || (e.properties->>'description'))
"""


async def repair(rag: Any) -> int:
    """Make the rows beside the graph of `rag` (a LightRAG on PostgreSQL, 1.5.7) agree with it; returns how many were written again."""
    db, workspace = rag.entities_vdb.db, rag.workspace
    chunks, entities, relations = (v.table_name.lower() for v in (rag.chunks_vdb, rag.entities_vdb, rag.relationships_vdb))

    async def remove(table: str, without: str) -> None:
        statement = f"DELETE FROM {table} t WHERE t.workspace = $1 AND NOT EXISTS ({without})"  # noqa: S608  LightRAG's own names
        await db.execute(statement, {"workspace": workspace})

    for table, column in (*_OF_DOCUMENTS, (chunks, "full_doc_id")):
        await remove(table, f"SELECT 1 FROM lightrag_doc_status s WHERE s.workspace = $1 AND s.id = t.{column}")  # noqa: S608
    node = "SELECT 1 FROM lightrag_graph_nodes n WHERE n.workspace = $1 AND n.id = "
    edge = "SELECT 1 FROM lightrag_graph_edges e WHERE e.workspace = $1 AND "
    await remove("lightrag_entity_chunks", f"{node} t.id")
    await remove(entities, f"{node} t.entity_name")
    await remove("lightrag_relation_chunks", f"{edge} t.id = e.src_id || '<SEP>' || e.tgt_id")
    await remove(relations, f"{edge} e.src_id = t.source_id AND e.tgt_id = t.target_id")

    written = 0
    for storage, statement, row_of in ((rag.entities_vdb, _ENTITIES, _entity), (rag.relationships_vdb, _RELATIONS, _relation)):
        differing = await db.query(statement.format(table=storage.table_name.lower()), [workspace], multirows=True)
        if differing:
            await storage.upsert(dict(row_of(row) for row in differing))
            await storage.index_done_callback()
            written += len(differing)
    return written


def _entity(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from lightrag.utils import compute_mdhash_id

    name, facts = row["name"], _facts(row)
    return compute_mdhash_id(name, prefix="ent-"), {
        "entity_name": name,
        "entity_type": facts.get("entity_type", ""),
        "content": f"{name}\n{facts.get('description', '')}",
        "source_id": facts.get("source_id", ""),
        "file_path": facts.get("file_path", ""),
    }


def _relation(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from lightrag.utils import compute_mdhash_id

    source, target, facts = row["source"], row["target"], _facts(row)
    return compute_mdhash_id(source + target, prefix="rel-"), {
        "src_id": source,
        "tgt_id": target,
        "content": f"{facts.get('keywords', '')}\t{source}\n{target}\n{facts.get('description', '')}",
        "source_id": facts.get("source_id", ""),
        "keywords": facts.get("keywords", ""),
        "description": facts.get("description", ""),
        "weight": facts.get("weight", 1.0),
        "file_path": facts.get("file_path", ""),
    }


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    import json

    facts = row["facts"]
    return dict(json.loads(facts) if isinstance(facts, str) else facts)
