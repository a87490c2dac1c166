"""The graph process: LightRAG in a process of its own, `python -m shield.knowledge.graph.child <fd> <parent>`.

One process serves one writer at a time (one knowledge base, one epoch) or all readers. LightRAG reads its PostgreSQL address, and with it
the session settings that carry the writer's epoch, from the environment; so they come as the first request over the wire and
are set here before LightRAG is imported: no credential stands in a command line or in `/proc/<pid>/environ`. The parent
starts it in an empty directory (LightRAG loads `.env` and `config.ini` from where it stands) and the kernel ends it with its
parent. Vectors and language models stay with the parent: both are requests in the other direction.

LightRAG's own cache of model answers is off, since it keeps whole prompts for ever. What it is for, rebuilding what several
documents share when one of them goes, is done here from the chunks that remain (`_extractions`). After a writer that ended in the
middle, what it left unfinished is taken out and its vectors are set right first (`repair`), so each insertion is all or nothing.
A reader migrates nothing and writes nothing: schema changes are taken out of LightRAG, and its sessions are read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shield.errors import QueryTooShort
from shield.knowledge.graph import upstream
from shield.knowledge.graph.merge import install as merge_in_bulk
from shield.knowledge.graph.model import Extraction
from shield.knowledge.graph.offline import SEPARATOR, extract, keywords, merge
from shield.knowledge.graph.repair import repair
from shield.knowledge.graph.tokens import PackedTokens
from shield.knowledge.graph.wire import Channel, Handler, PeerFailed, unpack

_FOREVER = 24 * 3600  # LightRAG's own time limits; the real ones are the parent's
_INPUT = ("---Input Text---\n```\n", "\n```\n\n---Output---")
_LIST = ("Description List:\n\n```\n", "\n```\n\n---Output---")


class NotInserted(Exception):
    """LightRAG did not take a document."""


class NotRemoved(Exception):
    """LightRAG did not let a document go."""


class StillConnected(Exception):
    """LightRAG did not let its connections go."""


@dataclass(frozen=True)
class Options:
    """What the parent says once."""

    reader: bool
    model: str
    dim: int
    llm: bool
    max_entities: int
    max_relations: int


class Host:
    """Serves the parent's requests on LightRAG."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self._options: Options | None = None
        self._rags: dict[str, Any] = {}
        self._opening = asyncio.Lock()
        self._key = ""
        self._failure: PeerFailed | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Host:
        return self  # LightRAG copies its configuration, and with it these methods

    # -- requests -----------------------------------------------------------------------------------------------------

    async def load(self, environment: dict[str, str], options: dict[str, Any]) -> None:
        """Take the address of the database and import LightRAG (seconds)."""
        os.environ.update(environment)
        self._options = Options(**options)
        import logging

        logging.disable(logging.CRITICAL)  # LightRAG's messages quote documents and questions
        sys.modules["pypinyin"] = None  # type: ignore[assignment]  # sorts Chinese file names: 50 MB and a quarter of the start
        import lightrag.operate

        upstream.keep_sessions_as_they_are()
        lightrag.operate._get_cached_extraction_results = self._extractions  # noqa: SLF001
        if self._options.reader:
            upstream.forbid_migrations()
        else:
            import lightrag.kg.pgtable_impl
            import lightrag.kg.postgres_impl  # now, and not under the parent's lock

            merge_in_bulk()
        # From here on this process stands in a directory that is gone: nothing can be planted in it, and nothing is left of it.
        with contextlib.suppress(OSError):  # not empty: the parent removes it in the end
            Path.cwd().rmdir()

    async def turn_to(self, environment: dict[str, str]) -> None:
        """Let go of every knowledge base and every connection; the next `open` connects as the writer that `environment` names."""
        from lightrag.kg.postgres_impl import ClientManager

        async with self._opening:
            while self._rags:
                _, rag = self._rags.popitem()
                await rag.finalize_storages()
            if ClientManager._instances["db"] is not None:  # noqa: SLF001  a connection that is left carries the old epoch
                raise StillConnected
            os.environ.update(environment)

    async def open(self, workspace: str) -> bool:
        """Make ready for a workspace; as the writer also its tables.

        False for a reader whose tables do not exist.
        """
        async with self._opening:
            if workspace in self._rags:
                return True
            rag = self._build(workspace)
            await rag.initialize_storages()
            if self._options_.reader and not await rag.chunks_vdb.db.check_table_exists(rag.chunks_vdb.table_name.lower()):
                await rag.finalize_storages()
                return False
            self._rags[workspace] = rag
            return True

    async def repair(self, workspace: str) -> int:
        """Set right what a writer left that ended in the middle; returns how many vectors were written again."""
        self._failure = None
        await self._take_out_unfinished(self._rags[workspace])
        return await repair(self._rags[workspace])

    async def insert(self, workspace: str, document: str, key: str, chunks: list[tuple[int, str]]) -> bool:
        """Put a document in, whole or not at all; False if it is there already."""
        rag = self._rags[workspace]
        status = await rag.doc_status.get_by_id(document)
        if status and status.get("status") == "processed":
            return False
        if status:
            await self._purge(rag, document)
        self._key, self._failure = key, None
        await rag.ainsert([_join(document, chunks)], ids=[document], file_paths=[document])
        status = await rag.doc_status.get_by_id(document)
        if not status or status.get("status") != "processed":
            raise self._failure or NotInserted
        return True

    async def remove(self, workspace: str, document: str) -> None:
        """Take a document out; what it shared with others is rebuilt from theirs."""
        rag = self._rags[workspace]
        self._failure = None
        await self._purge(rag, document)

    async def query(self, workspace: str, text: str, mode: str, top_k: int, chunk_top_k: int) -> dict[str, Any]:
        """LightRAG's retrieval without an answer: chunk ids, entities and relations with the chunks they come from.

        Raises:
            QueryTooShort: LightRAG wants at least three characters.
        """
        from lightrag import QueryParam
        from lightrag.query_validation import RAGQueryTooShortError

        high, low = keywords(text)
        param = QueryParam(
            mode=mode,
            top_k=top_k,
            chunk_top_k=chunk_top_k,
            enable_rerank=False,
            hl_keywords=high,
            ll_keywords=low,
        )
        self._failure = None
        try:
            found = await self._rags[workspace].aquery_data(text, param)
        except RAGQueryTooShortError as error:
            raise QueryTooShort from error
        if self._failure is not None:
            raise self._failure
        data = (found or {}).get("data") or {}
        return {
            "chunks": [chunk.get("chunk_id", "") for chunk in data.get("chunks", [])],
            "entities": [_pick(e, "entity_name", "entity_type", "description", "source_id") for e in data.get("entities", [])],
            "relations": [_pick(r, "src_id", "tgt_id", "keywords", "description", "source_id") for r in data.get("relationships", [])],
        }

    # -- what LightRAG calls -------------------------------------------------------------------------------------------

    async def _embed(self, texts: list[str], context: str = "document", **_: Any) -> npt.NDArray[np.float32]:
        packed = await self._ask("embed", texts=list(texts), query=context == "query")
        return unpack(packed, self._options_.dim)

    async def _complete(self, prompt: str, **_: Any) -> str:
        """Answer LightRAG's prompts: extraction (JSON mode) and the merging of descriptions; it has no others here."""
        if prompt.startswith("---Task---") and (text := _between(prompt, _INPUT)) is not None:
            return await self._extraction(self._key, text)
        if (listed := _between(prompt, _LIST)) is not None:
            descriptions = [json.loads(line)["Description"] for line in listed.splitlines() if line.strip()]
            if self._options_.llm:
                return str(await self._ask("summarize", descriptions=descriptions))
            return merge(descriptions)
        raise NotInserted

    async def _extractions(
        self, _cache: Any, chunk_ids: set[str], text_chunks_storage: Any
    ) -> tuple[dict[str, list[tuple[str, int]]], dict[str, dict[str, Any]]]:
        """Stands in for `lightrag.operate._get_cached_extraction_results` (1.5.7): extractions of the chunks that remain."""
        from lightrag.utils import sanitize_text_for_encoding

        wanted = sorted(chunk_ids)
        rows = await text_chunks_storage.get_by_ids(wanted)
        known = {chunk: row for chunk, row in zip(wanted, rows, strict=True) if row}
        results = {}
        for chunk, row in known.items():
            text = sanitize_text_for_encoding(str(row.get("content", "")))
            results[chunk] = [(await self._extraction(chunk.partition("-")[0], text), 0)]
        return results, known

    async def _extraction(self, key: str, text: str) -> str:
        options = self._options_
        if options.llm:
            found = await self._ask("extract", key=key, text=text.strip())
        else:
            found = as_json(extract(text.strip(), options.max_entities, options.max_relations))
        return json.dumps(_canonical(found), ensure_ascii=False)

    async def _ask(self, name: str, **args: Any) -> Any:
        assert self.channel is not None  # noqa: S101  set before anything is served
        try:
            return await self.channel.call(name, **args)
        except PeerFailed as error:
            self._failure = error  # LightRAG turns exceptions into statuses; the parent wants the cause
            raise

    # -- LightRAG ------------------------------------------------------------------------------------------------------

    @property
    def _options_(self) -> Options:
        assert self._options is not None  # noqa: S101  `load` comes first
        return self._options

    def _build(self, workspace: str) -> Any:
        from lightrag import LightRAG
        from lightrag.utils import EmbeddingFunc, Tokenizer

        options = self._options_
        return LightRAG(
            working_dir="/",  # must exist; storages on PostgreSQL write no files
            workspace=workspace,
            kv_storage="PGKVStorage",
            vector_storage="PGVectorStorage",
            graph_storage="PGTableGraphStorage",
            doc_status_storage="PGDocStatusStorage",
            tokenizer=Tokenizer("packed", PackedTokens()),
            chunking_func=_split,
            embedding_func=EmbeddingFunc(embedding_dim=options.dim, func=self._embed, max_token_size=1_000_000, model_name=options.model),
            embedding_batch_num=64,
            embedding_func_max_async=2,
            default_embedding_timeout=_FOREVER,
            llm_model_func=self._complete,
            llm_model_name="shield",
            llm_model_max_async=4,
            default_llm_timeout=_FOREVER,
            entity_extraction_use_json=True,
            entity_extract_max_gleaning=0,
            # By rule, every merge goes through `merge`, so a description has one form; a model is asked for longer lists only.
            force_llm_summary_on_merge=8 if options.llm else 2,
            enable_llm_cache=False,
            enable_llm_cache_for_entity_extract=False,
            max_parallel_insert=1,
        )

    async def _take_out_unfinished(self, rag: Any) -> None:
        from lightrag.base import DocStatus

        unfinished = [status for status in DocStatus if status is not DocStatus.PROCESSED]
        for document in sorted(await rag.doc_status.get_docs_by_statuses(unfinished)):
            await self._purge(rag, document)

    async def _purge(self, rag: Any, document: str) -> None:
        result = await rag.adelete_by_doc_id(document, delete_llm_cache=True)
        if result.status not in {"success", "not_found"}:
            raise self._failure or NotRemoved


def as_json(extraction: Extraction) -> dict[str, Any]:
    """An extraction as LightRAG's JSON mode answers it."""
    return {
        "entities": [{"name": e.name, "type": e.type, "description": e.description} for e in extraction.entities],
        "relationships": [
            {"source": r.source, "target": r.target, "keywords": r.keywords, "description": r.description} for r in extraction.relations
        ],
    }


def _canonical(found: dict[str, Any]) -> dict[str, Any]:
    """Names as LightRAG will normalise them, each entity and each pair once, every end of a relation an entity.

    LightRAG merges repeated names when it inserts but keeps one of them when it rebuilds; with none repeated both agree.
    """
    from lightrag.utils import normalize_entity_name

    def name(value: Any) -> str:
        return str(normalize_entity_name(str(value).replace(SEPARATOR, " ")))[:200]

    def text(value: Any) -> str:
        return str(value).replace(SEPARATOR, " ").strip()

    entities: dict[str, dict[str, str]] = {}
    for item in found["entities"]:
        if (key := name(item["name"])) and (description := text(item["description"])):
            entities.setdefault(key, {"name": key, "type": item["type"], "description": description})
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for item in found["relationships"]:
        source, target = sorted((name(item["source"]), name(item["target"])))
        description = text(item["description"])
        if not source or source == target or not description:
            continue
        for end in (source, target):
            entities.setdefault(end, {"name": end, "type": "concept", "description": description})
        keys = text(item["keywords"]) or f"{source}, {target}"
        pairs.setdefault((source, target), {"source": source, "target": target, "keywords": keys, "description": description})
    return {"entities": list(entities.values()), "relationships": list(pairs.values())}


def _mark(document: str) -> str:
    """Separates chunks; the document's name is a hash of its chunks, so no chunk can hold it."""
    return f"[shield:{document}:"


def _join(document: str, chunks: Sequence[tuple[int, str]]) -> str:
    return "\n".join(f"{_mark(document)}{ordinal}]\n{text}" for ordinal, text in chunks)


def _split(_tokenizer: Any, content: str, *_: Any) -> list[dict[str, Any]]:
    """LightRAG's `chunking_func`: our chunks again, each under its own ordinal."""
    mark = content[: content.index(":", len("[shield:")) + 1]
    pieces = (piece.partition("]\n") for piece in content.split(mark)[1:])
    return [
        {
            "tokens": max(1, len(text) // 4),
            "content": text.strip() or "-",
            "chunk_id": f"chunk-{int(ordinal)}",  # LightRAG numbers the chunks of each part from 0
            "chunk_order_index": position,
        }
        for position, (ordinal, _, text) in enumerate(pieces)
    ]


def _between(text: str, marks: tuple[str, str]) -> str | None:
    start, end = text.find(marks[0]), text.rfind(marks[1])
    return text[start + len(marks[0]) : end] if 0 <= start < end else None


def _pick(row: dict[str, Any], *names: str) -> list[str]:
    return [str(row.get(name) or "") for name in names]


async def _serve(descriptor: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    host = Host()
    handlers: dict[str, Handler] = {
        "load": host.load,
        "turn_to": host.turn_to,
        "open": host.open,
        "repair": host.repair,
        "insert": host.insert,
        "remove": host.remove,
        "query": host.query,
    }
    host.channel = Channel(reader, writer, handlers)
    await host.channel.run()


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Serve until the parent goes."""
    _end_with(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    asyncio.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
