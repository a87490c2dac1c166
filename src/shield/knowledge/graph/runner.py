"""The graph's writer at work: takes a knowledge base whose steps wait, writes for a bounded time, lets go.

The loop is pick, extract (with a model: outside the writer, in parallel), take, write, release. All writing is done by one graph
process that carries the writer's epoch; this side counts which documents hold a text, and ends a step in a transaction fenced by the
same epoch. A text is written in parts of `graph.part` chunks. Each effect is idempotent, so whatever dies at whatever point, the
next run repeats one part at most: a part that LightRAG has whole is left alone, one it has in pieces is taken out first.

What an error means: an open circuit, a throttled, misconfigured or absent dependency puts the step off and costs nothing, for as long
as a job may take; other errors, late answers and crashes cost a try, and after the last one the step is `failed` with its code, as it
is at once when the job's budget of tokens is spent; the vectors stay usable. A lost lease ends the batch. A stopping worker hands its step back. The writer is released after `graph.batch`, between two parts; the process stays
for `graph.idle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.errors import (
    BudgetExceeded,
    CircuitOpen,
    DatabaseUnavailable,
    DependencyMisconfigured,
    DependencyRejected,
    DependencyThrottled,
    DependencyUnavailable,
    GraphFailed,
    LeaseLost,
    RetriesExhausted,
    ShieldError,
    from_code,
)
from shield.knowledge.graph import tasks
from shield.knowledge.graph.child import Options
from shield.knowledge.graph.extract import LlmExtractor
from shield.knowledge.graph.model import GraphTask
from shield.knowledge.graph.process import table_model
from shield.knowledge.graph.session import WriterSession
from shield.knowledge.graph.vectors import GraphVectors, TextEmbedder
from shield.knowledge.graph.wire import PeerFailed, PeerGone
from shield.knowledge.graph.writer import GraphWriter, Hold
from shield.knowledge.llm import Llm
from shield.knowledge.model import Chunk
from shield.settings import Settings

log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 30.0  # seconds
_AHEAD = 8
"""Tasks whose extraction is asked for before the writer is taken."""


class _BatchOver(Exception):
    """The writer has been held long enough; the step goes on in a later batch."""


class GraphRunner:
    """Runs the graph steps of all knowledge bases, one batch at a time; as many runners as you like may run.

    Args:
        engine: the database.
        dsn: the same database for LightRAG; a direct address, no transaction pooler.
        embedder: keeps the vectors of chunks, and only those.
        llm: extracts and merges; None = by rule.
        settings: the group `graph`; budgets and pauses of `jobs`.
    """

    def __init__(self, engine: AsyncEngine, dsn: str, embedder: TextEmbedder, llm: Llm | None, settings: Settings) -> None:
        self._engine, self._settings = engine, settings
        self._vectors = GraphVectors(embedder)
        self._holder = uuid4().hex
        self._writer = GraphWriter(engine, self._holder, settings.graph.lease)
        graph = settings.graph
        options = Options(
            reader=False,
            model=table_model(embedder.model),
            dim=embedder.dim,
            llm=llm is not None,
            max_entities=graph.max_entities,
            max_relations=graph.max_relations,
        )
        width = max(1, settings.llm.concurrency - 1)  # a question finds a turn while documents are read
        self._extractor = (
            LlmExtractor(engine, llm, width=width, max_entities=graph.max_entities, max_relations=graph.max_relations) if llm else None
        )
        self._session = WriterSession(
            dsn, self._writer, vectors=self._vectors, extractor=self._extractor, options=options, settings=settings.graph
        )
        self._last: UUID | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then within a second or two: the running step is handed back."""
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

    async def close(self) -> None:
        """End the graph process, if one is running."""
        await self._session.close()

    async def step(self) -> bool:
        """One batch of one knowledge base; False if there was nothing to do.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        with database_errors():
            kb = await tasks.pick(self._engine, self._holder, self._last)
            if kb is None:
                return False
            self._last = kb
            if self._extractor is not None and not await self._prefetch(kb, self._extractor):
                return True
            return await self._batch(kb)

    async def drop(self, knowledge_base_id: UUID) -> bool:
        """Remove a knowledge base's whole graph and its bookkeeping; False while somebody else writes it."""
        with database_errors():
            hold = await self._writer.take(knowledge_base_id)
            if hold is None:
                return False
            if self._session.epoch(knowledge_base_id) is not None:
                await self.close()
            async with self._writer.fenced(hold) as connection:
                await tasks.forget_everything(connection, knowledge_base_id)
        return True

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        pause = self._settings.jobs.relay.total_seconds()
        idle_since: float | None = None
        clock = asyncio.get_running_loop().time
        pruned: float | None = None
        troubles = 0
        while True:
            try:
                if pruned is None or clock() - pruned > 24 * 3600:
                    with database_errors():
                        await tasks.prune(self._engine, self._settings.jobs.retention)
                    pruned = clock()
                worked = await self.step()
                troubles = 0
            except DatabaseUnavailable:
                worked = False
            except Exception as error:  # noqa: BLE001  the loop's boundary: one knowledge base must not end the graph of all others
                log.error("graph_step_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote a document
                await self.close()
                worked = False
                troubles += 1
            if worked:
                idle_since = None
                continue
            idle_since = clock() if idle_since is None else idle_since
            if self._session.process is not None and clock() - idle_since >= self._settings.graph.idle.total_seconds():
                await self.close()
            await asyncio.sleep(min(pause * 2**troubles, _LONGEST_PAUSE))  # what fails again and again is not tried all the time

    async def _prefetch(self, kb: UUID, extractor: LlmExtractor) -> bool:
        """Ask the model about what the next tasks add; False if that failed and its task was put off."""
        for task in await tasks.ahead(self._engine, kb, _AHEAD):
            async with self._engine.connect() as connection:
                texts = [chunk.embedded_text for chunk in await tasks.chunks_of(connection, kb, task.graph_key)]
            missing = await extractor.missing(kb, task.graph_key, texts)
            if not missing:
                continue
            claim = self._settings.llm.timeout * (2 + len(missing) // (4 * max(1, self._settings.llm.concurrency - 1)))
            if not await tasks.claim(self._engine, task.id, claim):
                continue  # somebody else asks for the same
            try:
                await extractor.prefetch(kb, task.graph_key, missing, task.job_id)
            except ShieldError as error:
                async with self._engine.begin() as connection:
                    await tasks.count_try(connection, task.id)
                    await self._settle(connection, task, error, task.errors + 1)
                return False
            except BaseException:
                await tasks.unclaim(self._engine, task.id)
                raise
            await tasks.unclaim(self._engine, task.id)
        return True

    async def _batch(self, kb: UUID) -> bool:
        keep = self._session.epoch(kb)
        hold = await self._writer.take(kb, keep)
        if hold is None:
            return False
        if hold.epoch != keep:
            await self.close()
        end = asyncio.get_running_loop().time() + self._settings.graph.batch.total_seconds()
        try:
            async with self._renewing(hold):
                while await self._next(hold, end):
                    pass
        except LeaseLost:
            log.info("graph_writer_lost")
            await self._session.kill()
        except _BatchOver:
            pass
        finally:
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await self._writer.release(hold)
        return True

    @asynccontextmanager
    async def _renewing(self, hold: Hold) -> AsyncIterator[None]:
        """Keep the lease meanwhile; LeaseLost (and the process's end) when that has not worked for its length."""
        lease = self._settings.graph.lease.total_seconds()
        clock = asyncio.get_running_loop().time

        async def renew(limit: asyncio.Timeout) -> None:
            while True:
                await asyncio.sleep(lease / 3)
                asked = clock()
                try:
                    with database_errors():
                        await self._writer.renew(hold)
                    limit.reschedule(asked + lease)
                except LeaseLost:
                    limit.reschedule(asked)
                    return
                except DatabaseUnavailable:
                    continue  # the limit stands

        try:
            async with asyncio.timeout(lease) as limit:
                keeper = asyncio.create_task(renew(limit))
                try:
                    yield
                finally:
                    keeper.cancel()
                    await asyncio.gather(keeper, return_exceptions=True)
        except TimeoutError:
            if limit.expired():
                raise LeaseLost from None
            raise

    # -- one task ------------------------------------------------------------------------------------------------------

    async def _next(self, hold: Hold, end: float) -> bool:
        """Do the next task; False when none is left or the batch's time is over."""
        if asyncio.get_running_loop().time() >= end:
            return False
        async with self._writer.fenced(hold) as connection:
            task = await tasks.begin(connection, hold.knowledge_base_id)
        if task is None:
            return False
        budget = self._settings.jobs.max_errors + self._settings.jobs.max_crashes
        try:
            if task.errors > budget:
                raise RetriesExhausted("The graph step took its process down too often and was given up.")
            if self._extractor is not None:
                self._extractor.work_for(task.job_id)
            await (self._add if task.operation == "add" else self._remove)(task, hold, end)
        except (_BatchOver, asyncio.CancelledError) as over:
            if isinstance(over, asyncio.CancelledError):
                await self._session.kill()
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await tasks.hand_back(self._engine, task.id)
            raise
        except (LeaseLost, DatabaseUnavailable):
            raise
        except (PeerGone, PeerFailed, ShieldError) as error:
            async with self._writer.fenced(hold) as connection:
                await self._settle(connection, task, _typed(error), task.errors)
            if isinstance(error, PeerGone):
                await self._session.kill()
                return False  # a new process needs a new epoch
        return True

    async def _settle(self, connection: AsyncConnection, task: GraphTask, error: ShieldError, tries: int) -> None:
        """Put a task off, or give it up, for what went wrong."""
        jobs = self._settings.jobs
        log.info("graph_task_error", code=error.code, task_id=task.id, tries=tries)
        neutral = isinstance(error, CircuitOpen | DependencyMisconfigured | DependencyThrottled) or _outage(error)
        given_up = await tasks.overdue(connection, task.id, jobs.deadline) if neutral else tries >= jobs.max_errors
        if given_up or isinstance(error, BudgetExceeded | DependencyRejected | RetriesExhausted):
            await tasks.end(connection, task, "failed", error.code, error.message)
            return
        ceiling = min(jobs.backoff_max, jobs.backoff_min * 2 ** min(tries, 16))
        delay = timedelta(seconds=random.uniform(0, ceiling.total_seconds()))  # noqa: S311  jitter
        if error.retry_after is not None:
            delay = max(delay, min(timedelta(seconds=error.retry_after), jobs.backoff_max))
        elif neutral:
            delay = max(delay, jobs.backoff_min)
        await tasks.postpone(connection, task.id, delay, spend=not neutral, code=error.code, message=error.message)

    async def _add(self, task: GraphTask, hold: Hold, end: float) -> None:
        kb = task.knowledge_base_id
        async with self._writer.fenced(hold) as connection:
            chunks = await tasks.chunks_of(connection, kb, task.graph_key)
            if not chunks:  # replaced or deleted meanwhile; a newer task says what holds now
                await tasks.end(connection, task, "superseded")
                return
            if self._extractor is not None and await self._extractor.missing(kb, task.graph_key, [c.embedded_text for c in chunks]):
                raise _BatchOver  # the model is never waited for with the writer in hand
            await tasks.join(connection, task)
            stored = await tasks.parts_stored(connection, kb, task.graph_key)
        for number, part in enumerate(_parts(chunks, self._settings.graph.part)):
            document = f"{task.graph_key}-{number:04d}"
            if stored.get(document) == "processed":
                continue
            if number and asyncio.get_running_loop().time() >= end:
                raise _BatchOver
            texts = [chunk.embedded_text for chunk in part]
            self._vectors.expect(texts)
            numbered = [(chunk.ordinal, text) for chunk, text in zip(part, texts, strict=True)]
            await self._session.call(hold, "insert", document=document, key=task.graph_key, chunks=numbered)
        async with self._writer.fenced(hold) as connection:
            await tasks.end(connection, task, "done")

    async def _remove(self, task: GraphTask, hold: Hold, end: float) -> None:
        kb = task.knowledge_base_id
        async with self._writer.fenced(hold) as connection:
            if await tasks.leave(connection, task) > 0:
                await tasks.end(connection, task, "done")
                return
            stored = await tasks.parts_stored(connection, kb, task.graph_key)
        for number, document in enumerate(stored):
            if number and asyncio.get_running_loop().time() >= end:
                raise _BatchOver
            await self._session.call(hold, "remove", document=document)
        async with self._writer.fenced(hold) as connection:
            await tasks.forget_key(connection, kb, task.graph_key)
            await tasks.end(connection, task, "done")


def _parts(chunks: list[Chunk], size: int) -> list[list[Chunk]]:
    return [chunks[at : at + size] for at in range(0, len(chunks), size)]


def _outage(error: ShieldError) -> bool:
    """A service does not answer, which is nobody's text's fault; an answer that is only late may be, so that costs a try."""
    return isinstance(error, DependencyUnavailable) and "service" in error.details and not error.details.get("late")


def _typed(error: PeerGone | PeerFailed | ShieldError) -> ShieldError:
    """The error as the job's outcome will show it."""
    if isinstance(error, ShieldError):
        return error
    if isinstance(error, PeerFailed) and error.code:
        return from_code(error.code, error.message, service="graph")
    what = "ended without an answer" if isinstance(error, PeerGone) else f"failed ({error.kind})"
    return GraphFailed(f"The graph's process {what}.")
