"""Deletion, counted from the outside.

Three documents go in; two share a sentence. One is deleted over MCP. Then every sentence that only it held is looked for,
by code that shares nothing with the product's own proof: in every text, JSON and binary column of every table named by
PostgreSQL's catalogue (through a connection of its own), in every payload of the Edge shards (opened with the server
stopped), and in every file outside the database's directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from fastmcp import Client

from shield.database.embedded import EmbeddedPostgres
from tests.proofs.harness import app_on, data_directory, ended

SHARED = "Visitors of the observatory leave their lamps at the gate before nightfall comes."
DELETED = [
    "The great refractor of Marlow was ground by hand over eleven patient winters.",
    "Its dome turns on forty bronze rollers that nobody has replaced since the flood.",
    'The astronomer\'s ledger says "the seventh comet was brighter than the harbour lights" in red ink.',
]
KEPT = ["The small reflector stands in the garden and is lent to pupils every spring."]
COLUMNS = """
    SELECT c.table_schema, c.table_name, c.column_name, c.data_type FROM information_schema.columns c
    JOIN information_schema.tables t USING (table_schema, table_name)
    WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN ('pg_catalog', 'information_schema')
      AND (c.data_type IN ('text', 'character varying', 'character', 'json', 'jsonb', 'bytea') OR c.data_type = 'ARRAY')
"""


async def prove(*, sabotage: bool) -> bool:
    """True if nothing of the deleted document is left and the shared sentence still is."""
    async with data_directory() as directory:
        if sabotage:
            with patch("shield.knowledge.deletion.remove_what_hangs_on", new=_forgetful):
                job = await _ingest_and_delete(directory)
        else:
            job = await _ingest_and_delete(directory)
        places = _search(directory, DELETED)
        shared = _search(directory, [SHARED])
    print(f"job: {job['status']}, own proof: {job.get('proof') and {k: v for k, v in job['proof'].items() if k != 'stores'}}")
    print(f"sentences checked {len(DELETED)}, hits {len(places)}, shared sentence kept {int(bool(shared))}")
    for place in places[:10]:
        print(f"  hit: {place}")
    return job["status"] == "completed" and not places and bool(shared) and job["proof"]["hits"] == 0


async def _ingest_and_delete(directory: Path) -> dict[str, Any]:
    async with app_on(directory) as app, Client(f"{app.info.url}/mcp") as client:
        texts = {"refractor": [*DELETED, SHARED], "reflector": [*KEPT, SHARED]}
        for source, sentences in texts.items():
            text = f"# The {source}\n\n" + "\n\n".join(sentences)
            job = await ended(client, (await client.call_tool("ingest_doc", {"text": text, "source": source})).data.job_id)
            if job["status"] != "completed":
                raise RuntimeError(f"the proof could not begin: {job}")
        await client.call_tool("lightrag_query", {"query": "Who ground the great refractor of Marlow?"})
        listed = (await client.call_tool("list_documents", {})).structured_content or {}
        doomed = next(document for document in listed["documents"] if document["source"] == "refractor")
        return await ended(client, (await client.call_tool("delete_document", {"document_id": doomed["document_id"]})).data.job_id)


async def _forgetful(*_: Any, **__: Any) -> list[str]:
    """The deletion as it would be if it forgot chunks, caches, uploads and extractions."""
    return []


def _search(directory: Path, sentences: list[str]) -> list[str]:
    return [*_in_postgres(directory, sentences), *_in_vectors(directory, sentences), *_in_files(directory, sentences)]


def _forms(sentence: str) -> list[str]:
    """As it stands, and as JSON would hold it."""
    return list({sentence, sentence.replace('"', '\\"')})


def _in_postgres(directory: Path, sentences: list[str]) -> list[str]:
    found = []
    with EmbeddedPostgres(directory) as server, psycopg.connect(server.dsn) as connection:
        columns = connection.execute(COLUMNS).fetchall()
        for schema, table, column, kind in columns:
            value = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'"{column}"::text'
            for sentence in sentences:
                for form in _forms(sentence):
                    query = f'SELECT count(*) FROM "{schema}"."{table}" WHERE position(%s in {value}) > 0'
                    if connection.execute(query.encode(), (form,)).fetchone() != (0,):
                        found.append(f"{table}.{column}")
    if len(columns) < 50:
        raise RuntimeError(f"only {len(columns)} columns were searched: the catalogue was not read")
    return found


def _in_vectors(directory: Path, sentences: list[str]) -> list[str]:
    import qdrant_edge as edge

    found, points = [], 0
    for shard_path in {path.parent for path in (directory / "vectors").rglob("segments")}:
        shard = edge.EdgeShard.load(str(shard_path))
        offset = None
        while True:
            records, offset = shard.scroll(edge.ScrollRequest(limit=500, offset=offset, with_payload=True))
            points += len(records)
            found += ["vector payload" for record in records for sentence in sentences if sentence in str(record.payload)]
            if offset is None:
                break
        shard.close()
    if not points:
        raise RuntimeError("no vectors were searched")
    return found


def _in_files(directory: Path, sentences: list[str]) -> list[str]:
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and not path.relative_to(directory).parts[0].startswith("pg"):
            content = path.read_bytes()
            found += [str(path.relative_to(directory)) for sentence in sentences for form in _forms(sentence) if form.encode() in content]
    return found
