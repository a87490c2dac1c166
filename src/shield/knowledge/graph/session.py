"""The writer's graph process over time: started when it is first needed, kept while its epoch lasts, repaired after a bad end."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from shield.knowledge.graph.child import Options
from shield.knowledge.graph.extract import LlmExtractor
from shield.knowledge.graph.model import workspace
from shield.knowledge.graph.process import GraphProcess, database_environment
from shield.knowledge.graph.vectors import GraphVectors
from shield.knowledge.graph.wire import Handler
from shield.knowledge.graph.writer import GraphWriter, Hold
from shield.settings import GraphSettings

_CONNECTIONS = 6


class WriterSession:
    """At most one process; it writes one knowledge base under one epoch."""

    def __init__(
        self,
        dsn: str,
        writer: GraphWriter,
        *,
        vectors: GraphVectors,
        extractor: LlmExtractor | None,
        options: Options,
        settings: GraphSettings,
    ) -> None:
        self._dsn, self._writer, self._options, self._settings = dsn, writer, options, settings
        self._vectors, self._extractor = vectors, extractor
        self.process: GraphProcess | None = None
        self._serves: tuple[UUID, int] | None = None

    def epoch(self, knowledge_base_id: UUID) -> int | None:
        """The epoch under which a process for this knowledge base is running, if one is."""
        if self.process is None or not self.process.alive or self._serves is None or self._serves[0] != knowledge_base_id:
            return None
        return self._serves[1]

    async def call(self, hold: Hold, name: str, **args: Any) -> None:
        """Let the process do one unit of work; `hold` is in order again only when it has answered well.

        Raises:
            PeerGone: the process died or took too long; the next call needs a new hold.
            PeerFailed: it answered with an error.
        """
        process = await self._started(hold)
        if not hold.orderly:
            await process.call("repair", self._settings.part_timeout, workspace=workspace(hold.knowledge_base_id))
        hold.orderly = False
        await process.call(name, self._settings.part_timeout, workspace=workspace(hold.knowledge_base_id), **args)
        hold.orderly = True

    async def close(self) -> None:
        """End the process between two units of work."""
        if self.process is not None:
            process, self.process = self.process, None
            await process.stop()

    async def kill(self) -> None:
        """End the process wherever it is."""
        if self.process is not None:
            process, self.process = self.process, None
            await process.kill()

    async def _started(self, hold: Hold) -> GraphProcess:
        if self.process is not None and self._serves == (hold.knowledge_base_id, hold.epoch):
            return self.process
        await self.close()
        kb, limit = workspace(hold.knowledge_base_id), self._settings.start
        session = {
            "shield.kb": kb,
            "shield.epoch": str(hold.epoch),
            # A frozen process must not hold up its successor: its open transaction is ended by the server.
            "idle_in_transaction_session_timeout": str(int(self._settings.lease.total_seconds() * 500)),
            "statement_timeout": str(int(self._settings.part_timeout.total_seconds() * 1000)),
            "application_name": "shield-graph",
        }
        handlers: dict[str, Handler] = {"embed": self._vectors.embed}
        if self._extractor is not None:
            self._extractor.serve(hold.knowledge_base_id)
            handlers |= {"extract": self._extractor.extract, "summarize": self._extractor.summarize}
        process = await GraphProcess.start(handlers, database_environment(self._dsn, session, _CONNECTIONS), self._options, limit)
        try:
            async with self._writer.setting_up(2 * limit):  # longer than the request in it
                await process.call("open", limit, workspace=kb)
        except BaseException:
            await process.kill()
            raise
        self.process, self._serves = process, (hold.knowledge_base_id, hold.epoch)
        return process
