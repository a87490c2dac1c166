"""The graph's writer at work: takes a knowledge base whose steps wait, writes for a bounded time, lets go.

The loop is pick, extract (with a model: outside the writer, in parallel), take, write, release. All writing is done by one graph
process that carries the writer's epoch; this side counts which documents hold a text, and ends a step in a transaction fenced by the
same epoch. A text is written in parts of `graph.part` chunks. Each effect is idempotent, so whatever dies at whatever point, the
next run repeats one part at most: a part that LightRAG has whole is left alone, one it has in pieces is taken out first.

What an error means: an open circuit, a throttled or misconfigured dependency puts the step off and costs nothing; other errors
and crashes cost a try, and after the last one the step is `failed` with its code; the vectors stay usable. A lost lease ends the
batch. A stopping worker hands its step back. The writer is released after `graph.batch`, between two parts; the process stays
for `graph.idle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.errors import (
    CircuitOpen,
    DatabaseUnavailable,
    DependencyMisconfigured,
    DependencyRejected,
    DependencyThrottled,
    GraphFailed,
    LeaseLost,
    RetriesExhausted,
    ShieldError,
    from_code,
)
from shield.knowledge.embedding.port import Embedder
from shield.knowledge.graph import tasks
from shield.knowledge.graph.child import Options
from shield.knowledge.graph.extract import LlmExtractor
from shield.knowledge.graph.model import GraphTask, workspace
from shield.knowledge.graph.process import GraphProcess, database_environment, table_model
from shield.knowledge.graph.vectors import GraphVectors
from shield.knowledge.graph.wire import Handler, PeerFailed, PeerGone
from shield.knowledge.graph.writer import GraphWriter
from shield.knowledge.llm import Llm
from shield.knowledge.model import Chunk
from shield.settings import Settings

log = structlog.get_logger(__name__)

_CONNECTIONS = 6
_AHEAD = 8
"""Tasks whose extraction is asked for before the writer is taken."""


@dataclass(frozen=True)
class _Session:
    """A running process and what it may write."""

    knowledge_base_id: UUID
    epoch: int
    process: GraphProcess


class _BatchOver(Exception):
    """The writer has been held long enough; the step goes on in a later batch."""


class GraphRunner:
    """Runs the graph steps of all knowledge bases, one batch at a time; as many runners as you like may run.

    Args:
        engine: the database.
        dsn: the same database for LightRAG; a direct address, no transaction pooler.
        embedder: whose vectors of chunks are kept.
        llm: extracts and merges; None = by rule.
        settings: the group `graph`; budgets and pauses of `jobs`.
        plain: makes vectors that are not kept; `embedder` where None.
    """

    def __init__(
        self, engine: AsyncEngine, dsn: str, embedder: Embedder, llm: Llm | None, settings: Settings, *, plain: Embedder | None = None
    ) -> None:
        self._engine, self._dsn, self._settings = engine, dsn, settings
        self._vectors = GraphVectors(embedder, plain or embedder)
        self._holder = uuid4().hex
        self._writer = GraphWriter(engine, self._holder, settings.graph.lease)
        graph = settings.graph
        self._options = Options(
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
        self._session: _Session | None = None
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
        if self._session is not None:
            session, self._session = self._session, None
            await session.process.stop()

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
            epoch = await self._writer.take(knowledge_base_id)
            if epoch is None:
                return False
            if self._session is not None and self._session.knowledge_base_id == knowledge_base_id:
                await self.close()
            async with self._writer.fenced(knowledge_base_id, epoch) as connection:
                await tasks.forget_everything(connection, knowledge_base_id)
        return True

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        pause = self._settings.jobs.relay.total_seconds()
        idle_since: float | None = None
        clock = asyncio.get_running_loop().time
        pruned: float | None = None
        while True:
            try:
                if pruned is None or clock() - pruned > 24 * 3600:
                    with database_errors():
                        await tasks.prune(self._engine, self._settings.jobs.retention)
                    pruned = clock()
                worked = await self.step()
            except DatabaseUnavailable:
                worked = False
            except Exception as error:  # noqa: BLE001  the loop's boundary: one knowledge base must not end the graph of all others
                log.error("graph_step_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote a document
                await self.close()
                worked = False
            if worked:
                idle_since = None
                continue
            idle_since = clock() if idle_since is None else idle_since
            if self._session is not None and clock() - idle_since >= self._settings.graph.idle.total_seconds():
                await self.close()
            await asyncio.sleep(pause)

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
                await extractor.prefetch(kb, task.graph_key, missing)
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
        keep = self._session.epoch if self._session and self._session.knowledge_base_id == kb and self._session.process.alive else None
        if keep is None:
            await self.close()
        epoch = await self._writer.take(kb, keep)
        if epoch is None:
            return False
        if epoch != keep:
            await self.close()
        end = asyncio.get_running_loop().time() + self._settings.graph.batch.total_seconds()
        try:
            async with self._renewing(kb, epoch):
                while await self._next(kb, epoch, end):
                    pass
        except LeaseLost:
            log.info("graph_writer_lost")
            await self._drop_session()
        except _BatchOver:
            pass
        finally:
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await self._writer.release(kb, epoch)
        return True

    @asynccontextmanager
    async def _renewing(self, kb: UUID, epoch: int) -> AsyncIterator[None]:
        """Keep the lease meanwhile; LeaseLost (and the process's end) when that has not worked for its length."""
        lease = self._settings.graph.lease.total_seconds()
        clock = asyncio.get_running_loop().time

        async def renew(limit: asyncio.Timeout) -> None:
            while True:
                await asyncio.sleep(lease / 3)
                asked = clock()
                try:
                    with database_errors():
                        await self._writer.renew(kb, epoch)
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

    async def _next(self, kb: UUID, epoch: int, end: float) -> bool:
        """Do the next task; False when none is left or the batch's time is over."""
        if asyncio.get_running_loop().time() >= end:
            return False
        async with self._writer.fenced(kb, epoch) as connection:
            task = await tasks.begin(connection, kb)
        if task is None:
            return False
        budget = self._settings.jobs.max_errors + self._settings.jobs.max_crashes
        try:
            if task.errors > budget:
                raise RetriesExhausted("The graph step took its process down too often and was given up.")
            await (self._add if task.operation == "add" else self._remove)(task, epoch, end)
        except (_BatchOver, asyncio.CancelledError) as over:
            if isinstance(over, asyncio.CancelledError):
                await self._drop_session()
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await tasks.hand_back(self._engine, task.id)
            raise
        except (LeaseLost, DatabaseUnavailable):
            raise
        except (PeerGone, PeerFailed, ShieldError) as error:
            async with self._writer.fenced(kb, epoch) as connection:
                await self._settle(connection, task, _typed(error), task.errors)
            if isinstance(error, PeerGone):
                await self._drop_session()
                return False  # a new process needs a new epoch
        return True

    async def _settle(self, connection: AsyncConnection, task: GraphTask, error: ShieldError, tries: int) -> None:
        """Put a task off, or give it up, for what went wrong."""
        jobs = self._settings.jobs
        log.info("graph_task_error", code=error.code, task_id=task.id, tries=tries)
        neutral = isinstance(error, CircuitOpen | DependencyMisconfigured | DependencyThrottled)
        if isinstance(error, DependencyRejected | RetriesExhausted) or (not neutral and tries >= jobs.max_errors):
            await tasks.end(connection, task, "failed", error.code, error.message)
            return
        ceiling = min(jobs.backoff_max, jobs.backoff_min * 2 ** min(tries, 16))
        delay = timedelta(seconds=random.uniform(0, ceiling.total_seconds()))  # noqa: S311  jitter
        if error.retry_after is not None:
            delay = max(delay, min(timedelta(seconds=error.retry_after), jobs.backoff_max))
        elif neutral:
            delay = max(delay, jobs.backoff_min)
        await tasks.postpone(connection, task.id, delay, spend=not neutral, code=error.code, message=error.message)

    async def _add(self, task: GraphTask, epoch: int, end: float) -> None:
        kb = task.knowledge_base_id
        async with self._writer.fenced(kb, epoch) as connection:
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
            process = await self._process(kb, epoch)
            texts = [chunk.embedded_text for chunk in part]
            self._vectors.expect(texts)
            await process.call(
                "insert",
                self._settings.graph.part_timeout,
                workspace=workspace(kb),
                document=document,
                key=task.graph_key,
                chunks=[(chunk.ordinal, text) for chunk, text in zip(part, texts, strict=True)],
            )
        async with self._writer.fenced(kb, epoch) as connection:
            await tasks.end(connection, task, "done")

    async def _remove(self, task: GraphTask, epoch: int, end: float) -> None:
        kb = task.knowledge_base_id
        async with self._writer.fenced(kb, epoch) as connection:
            if await tasks.leave(connection, task) > 0:
                await tasks.end(connection, task, "done")
                return
            stored = await tasks.parts_stored(connection, kb, task.graph_key)
        for number, document in enumerate(stored):
            if number and asyncio.get_running_loop().time() >= end:
                raise _BatchOver
            process = await self._process(kb, epoch)
            await process.call("remove", self._settings.graph.part_timeout, workspace=workspace(kb), document=document)
        async with self._writer.fenced(kb, epoch) as connection:
            await tasks.forget_key(connection, kb, task.graph_key)
            await tasks.end(connection, task, "done")

    # -- the process ---------------------------------------------------------------------------------------------------

    async def _process(self, kb: UUID, epoch: int) -> GraphProcess:
        """The process that writes this epoch, started and made ready if there is none."""
        session = self._session
        if session is not None and (session.knowledge_base_id, session.epoch) == (kb, epoch):
            return session.process
        await self.close()
        limit = self._settings.graph.start
        session_settings = {
            "shield.kb": workspace(kb),
            "shield.epoch": str(epoch),
            # A frozen process must not hold up its successor: its open transaction is ended by the server.
            "idle_in_transaction_session_timeout": str(int(self._settings.graph.lease.total_seconds() * 500)),
            "statement_timeout": str(int(self._settings.graph.part_timeout.total_seconds() * 1000)),
            "application_name": "shield-graph",
        }
        handlers: dict[str, Handler] = {"embed": self._vectors.embed}
        if self._extractor is not None:
            self._extractor.serve(kb)
            handlers |= {"extract": self._extractor.extract, "summarize": self._extractor.summarize}
        process = await GraphProcess.start(handlers, database_environment(self._dsn, session_settings, _CONNECTIONS), self._options, limit)
        try:
            async with self._writer.setting_up(2 * limit):  # longer than the request in it
                await process.call("open", limit, workspace=workspace(kb))
        except BaseException:
            await process.kill()
            raise
        self._session = _Session(kb, epoch, process)
        return process

    async def _drop_session(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.process.kill()


def _parts(chunks: list[Chunk], size: int) -> list[list[Chunk]]:
    return [chunks[at : at + size] for at in range(0, len(chunks), size)]


def _typed(error: PeerGone | PeerFailed | ShieldError) -> ShieldError:
    """The error as the job's outcome will show it."""
    if isinstance(error, ShieldError):
        return error
    if isinstance(error, PeerFailed) and error.code:
        return from_code(error.code, error.message)
    what = "ended without an answer" if isinstance(error, PeerGone) else f"failed ({error.kind})"
    return GraphFailed(f"The graph's process {what}.")
