"""The graph's work in one process: texts are read by a model as widely as it allows, knowledge bases written one a lane.

Reading (`reading.py`) and writing (`lane.py`) meet in the rows of `graph_tasks` only, so any number of processes may run this on one
database: all of them read, and for each knowledge base one of them writes. A busy knowledge base costs nobody a slot and is not waited
for: what cannot be written now is found at a later look. `worker.graph` lanes write that many knowledge bases at once, each with a process
of its own, which ends after `graph.idle` without work. Without a model there is nothing to read.

An error in one step never ends a loop; loops that fail again and again look less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DatabaseUnavailable
from shield.knowledge.graph import tasks
from shield.knowledge.graph.extract import LlmExtractor
from shield.knowledge.graph.lane import WriterLane
from shield.knowledge.graph.model import NOBODY, Observer
from shield.knowledge.graph.reading import TextReader
from shield.knowledge.graph.turns import Turns
from shield.knowledge.graph.vectors import TextEmbedder
from shield.knowledge.graph.writer import GraphWriter
from shield.knowledge.llm import Llm
from shield.resilience.waiting import wait
from shield.settings import Settings

log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 30.0  # seconds
_PRUNE = 24 * 3600.0  # seconds
_THRIFTY = 5.0  # seconds after `recycle` in which an idle process is not kept


class GraphRunner:
    """Runs the graph steps of all knowledge bases; as many runners as you like may run.

    Args:
        engine: the database.
        dsn: the same database for LightRAG; a direct address, no transaction pooler.
        embedder: keeps the vectors of chunks, and only those.
        llm: extracts and merges; None = by rule.
        settings: the group `graph`; `worker.graph`; budgets and pauses of `jobs`.
        observer: told what becomes of the steps, for metrics.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        dsn: str,
        embedder: TextEmbedder,
        llm: Llm | None,
        settings: Settings,
        *,
        observer: Observer = NOBODY,
    ) -> None:
        self._engine, self._settings = engine, settings
        extractor: LlmExtractor | None = None
        self._readers: list[TextReader] = []
        if llm is not None:
            graph, width = settings.graph, max(1, settings.llm.concurrency - 1)  # a question finds a turn while texts are read
            extractor = LlmExtractor(engine, llm, width=width, max_entities=graph.max_entities, max_relations=graph.max_relations)
            read = Turns()
            self._readers = [TextReader(engine, extractor, read, settings, self._tell, observer=observer) for _ in range(width)]
        written = Turns()
        self.lanes = tuple(
            WriterLane(engine, dsn, settings, embedder=embedder, extractor=extractor, turns=written, observer=observer)
            for _ in range(settings.worker.graph)
        )
        self._news = tuple(asyncio.Event() for _ in self.lanes)
        self._thrifty_until = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then within a second or two: the running steps are handed back."""
        stopping = asyncio.create_task(stop.wait())
        try:
            working = asyncio.create_task(self._work())
            await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            if working.done() and not working.cancelled() and (error := working.exception()):
                raise error
        finally:
            stopping.cancel()
            await self.close()

    async def recycle(self) -> None:
        """Memory is short: let the graph processes go that have nothing to do just now."""
        self._thrifty_until = asyncio.get_running_loop().time() + _THRIFTY
        self._tell()

    async def close(self) -> None:
        """End the graph processes that are running."""
        await asyncio.gather(*(lane.session.close() for lane in self.lanes))

    async def step(self) -> bool:
        """Read one text if there is a model, and write one batch of one knowledge base; False if there was nothing to do.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        read = [await reader.step() for reader in self._readers[:1]]
        return await self.lanes[0].step() or any(read)

    async def drop(self, knowledge_base_id: UUID) -> bool:
        """Remove a knowledge base's whole graph and its bookkeeping; False while somebody writes it."""
        writer = GraphWriter(self._engine, uuid4().hex, self._settings.graph.lease)
        with database_errors():
            hold = await writer.take(knowledge_base_id)
            if hold is None:
                return False
            async with writer.fenced(hold) as connection:
                await tasks.forget_everything(connection, knowledge_base_id)
        return True

    # -- the loops -----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """A text has been read: a lane that rests looks at once."""
        for news in self._news:
            news.set()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._prune())
            for reader in self._readers:
                loops.create_task(self._repeat(reader.step, asyncio.Event()))
            for lane, news in zip(self.lanes, self._news, strict=True):
                loops.create_task(self._repeat(lane.step, news, lane.rest))

    async def _repeat(
        self, step: Callable[[], Awaitable[bool]], news: asyncio.Event, rest: Callable[[float], Awaitable[None]] | None = None
    ) -> NoReturn:
        """Step for ever. While there is nothing to do, look every `jobs.relay`, or at news; less often what fails again and again."""
        pause, clock = self._settings.jobs.relay.total_seconds(), asyncio.get_running_loop().time
        last, troubles = clock(), 0
        while True:
            news.clear()
            try:
                worked = await step()
                troubles = 0
            except DatabaseUnavailable:
                worked = False
            except Exception as error:  # noqa: BLE001  the loop's boundary: one knowledge base must not end the graph of all others
                log.error("graph.step_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote a document
                worked, troubles = False, troubles + 1
            if worked:
                last = clock()
                continue
            if rest is not None:
                await rest(clock() - last if clock() > self._thrifty_until else float("inf"))
            await wait(news, min(pause * 2**troubles, _LONGEST_PAUSE))

    async def _prune(self) -> NoReturn:
        while True:
            try:
                with database_errors():
                    await tasks.prune(self._engine, self._settings.jobs.retention)
            except DatabaseUnavailable:
                await asyncio.sleep(_LONGEST_PAUSE)
                continue
            await asyncio.sleep(_PRUNE)
