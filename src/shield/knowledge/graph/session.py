"""The writer's graph process over time: started when first needed, turned to the next knowledge base, repaired after a bad end.

A process carries one epoch of one knowledge base on all its connections. To write another it lets go of all of them and connects
anew with the new epoch, which takes a tenth of a start; only a process whose last unit of work ended well is kept.
"""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

from shield.database.engine import over_tcp
from shield.knowledge.graph.child import Options
from shield.knowledge.graph.extract import WriterAnswers
from shield.knowledge.graph.model import workspace
from shield.knowledge.graph.process import GraphProcess, database_environment
from shield.knowledge.graph.vectors import GraphVectors
from shield.knowledge.graph.wire import Handler, PeerFailed, PeerGone
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
        answers: WriterAnswers | None,
        options: Options,
        settings: GraphSettings,
    ) -> None:
        self._dsn, self._writer, self._options, self._settings = dsn, writer, options, settings
        self._vectors, self._answers = vectors, answers
        self.process: GraphProcess | None = None
        self._serves: tuple[UUID, int] | None = None
        self._clean = True

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
        self._clean = False
        if not hold.orderly:
            await process.call("repair", self._settings.part_timeout, workspace=workspace(hold.knowledge_base_id))
        hold.orderly = False
        await process.call(name, self._settings.part_timeout, workspace=workspace(hold.knowledge_base_id), **args)
        hold.orderly = self._clean = True

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
        process = await self._connected(hold)
        limit = self._settings.start
        try:
            async with self._writer.setting_up(2 * limit):  # longer than the request in it
                await process.call("open", limit, workspace=workspace(hold.knowledge_base_id))
        except BaseException:  # passes on: failed or cancelled, what the process has opened is unknown
            self.process = None
            await process.kill()
            raise
        self.process, self._serves = process, (hold.knowledge_base_id, hold.epoch)
        return process

    async def _connected(self, hold: Hold) -> GraphProcess:
        """The process that is there, or a new one, as the writer of this epoch."""
        environment = database_environment(self._dsn, self._session_settings(hold), _CONNECTIONS)
        if self.process is not None and self.process.alive and self._clean:
            with contextlib.suppress(PeerGone, PeerFailed):
                await self.process.call("turn_to", self._settings.start, environment=environment)
                return self.process
        await self.kill()
        handlers: dict[str, Handler] = {"embed": self._vectors.embed}
        if self._answers is not None:
            handlers |= {"extract": self._answers.extract, "summarize": self._answers.summarize}
        self._clean = True
        return await GraphProcess.start(handlers, environment, self._options, self._settings.start)

    def _session_settings(self, hold: Hold) -> dict[str, str]:
        settings = {
            "shield.kb": workspace(hold.knowledge_base_id),
            "shield.epoch": str(hold.epoch),
            # A frozen process must not hold up its successor: its open transaction is ended by the server.
            "idle_in_transaction_session_timeout": str(int(self._settings.lease.total_seconds() * 500)),
            "statement_timeout": str(int(self._settings.part_timeout.total_seconds() * 1000)),
            # The log is written in order, so the commit that ends the step, which does wait for the disk, makes all of this durable.
            "synchronous_commit": "off",
            "application_name": "shield-graph",
        }
        if over_tcp(self._dsn):  # nor must one behind a cut cable
            settings |= {
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "25000",
            }
        return settings
