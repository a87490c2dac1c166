"""The writing half of the graph: takes a knowledge base whose steps can be written, writes for a bounded time, lets go.

All writing is done by one graph process that carries the writer's epoch; this side counts which documents hold a text, and ends a step
in a transaction fenced by the same epoch. A text is written in parts of `graph.part` chunks. Each effect is idempotent, so whatever
dies at whatever point, the next run repeats one part at most: a part that LightRAG has whole is left alone, one it has in pieces
is taken out first.

A lost lease ends the batch. A stopping worker hands its step back. The writer is released after `graph.batch`, between two parts. What
an error means is said in `verdict.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DatabaseUnavailable, LeaseLost, RetriesExhausted, ShieldError
from shield.knowledge.graph import tasks
from shield.knowledge.graph.child import Options
from shield.knowledge.graph.extract import LlmExtractor, WriterAnswers
from shield.knowledge.graph.model import NOBODY, GraphTask, Observer
from shield.knowledge.graph.process import table_model
from shield.knowledge.graph.session import WriterSession
from shield.knowledge.graph.turns import Turns
from shield.knowledge.graph.vectors import GraphVectors, TextEmbedder
from shield.knowledge.graph.verdict import settle, typed
from shield.knowledge.graph.wire import PeerFailed, PeerGone
from shield.knowledge.graph.writer import GraphWriter, Hold
from shield.knowledge.model import Chunk
from shield.settings import Settings

log = structlog.get_logger(__name__)


class _BatchOver(Exception):
    """The writer has been held long enough; the step goes on in a later batch."""


class WriterLane:
    """Writes one knowledge base at a time, with a graph process of its own."""

    def __init__(
        self,
        engine: AsyncEngine,
        dsn: str,
        settings: Settings,
        *,
        embedder: TextEmbedder,
        extractor: LlmExtractor | None,
        turns: Turns,
        observer: Observer = NOBODY,
    ) -> None:
        self._engine, self._settings, self._turns = engine, settings, turns
        self._observer = observer
        self._holder = uuid4().hex
        self._model = extractor.name if extractor else None
        self._answers = WriterAnswers(extractor) if extractor else None
        self.vectors = GraphVectors(embedder)
        self.writer = GraphWriter(engine, self._holder, settings.graph.lease)
        options = Options(
            reader=False,
            model=table_model(embedder.model),
            dim=embedder.dim,
            llm=extractor is not None,
            max_entities=settings.graph.max_entities,
            max_relations=settings.graph.max_relations,
        )
        self.session = WriterSession(
            dsn, self.writer, vectors=self.vectors, answers=self._answers, options=options, settings=settings.graph
        )

    async def step(self) -> bool:
        """One batch of one knowledge base; False if there was nothing to do.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        with database_errors():
            kb = await tasks.pick(self._engine, self._holder, self._model, self._turns.served, 2 * self._settings.jobs.relay)
            if kb is None:
                return False
            self._turns.serve(kb)
            try:
                return await self._batch(kb)
            except Exception:  # passes on; whatever went wrong, a process in an unknown state must not write again
                await self.session.kill()
                raise

    async def rest(self, idle: float) -> None:
        """Let the process go once there has been nothing to do for `idle` seconds of at least `graph.idle`."""
        if idle >= self._settings.graph.idle.total_seconds():
            await self.session.close()

    async def _batch(self, kb: UUID) -> bool:
        hold = await self.writer.take(kb, self.session.epoch(kb))
        if hold is None:
            return False
        end = asyncio.get_running_loop().time() + self._settings.graph.batch.total_seconds()
        try:
            async with self._renewing(hold):
                while await self._next(hold, end):
                    pass
        except LeaseLost:
            log.info("graph.writer_lost")
            await self.session.kill()
        except _BatchOver:
            pass
        finally:
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await self.writer.release(hold)
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
                        await self.writer.renew(hold)
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
        async with self.writer.fenced(hold) as connection:
            task = await tasks.begin(connection, hold.knowledge_base_id, self._model)
        if task is None:
            return False
        self._observer.waited(task.waited)
        budget = self._settings.jobs.max_errors + self._settings.jobs.max_crashes
        try:
            if task.errors > budget:
                raise RetriesExhausted("The graph step took its process down too often and was given up.")
            result = await (self._add if task.operation == "add" else self._remove)(task, hold, end)
        except (_BatchOver, asyncio.CancelledError) as over:
            if isinstance(over, asyncio.CancelledError):
                await self.session.kill()
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await tasks.hand_back(self._engine, task.id)
            self._observer.step(task.operation, "handed_back")
            raise
        except (LeaseLost, DatabaseUnavailable):
            raise
        except (PeerGone, PeerFailed, ShieldError) as error:
            async with self.writer.fenced(hold) as connection:
                verdict = await settle(connection, task, typed(error), task.errors, self._settings.jobs)
            self._observer.step(task.operation, verdict)
            if isinstance(error, PeerGone):
                await self.session.kill()
                return False  # a new process needs a new epoch
        else:
            self._observer.step(task.operation, result)
        return True

    async def _add(self, task: GraphTask, hold: Hold, end: float) -> str:
        kb = task.knowledge_base_id
        async with self.writer.fenced(hold) as connection:
            chunks = await tasks.chunks_of(connection, kb, task.graph_key)
            if not chunks:  # replaced or deleted meanwhile; a newer task says what holds now
                await tasks.end(connection, task, "superseded")
                return "superseded"
            if self._answers is not None and not await self._answers.expect(task, [chunk.embedded_text for chunk in chunks]):
                await tasks.unread(connection, task.id)  # the model is not waited for with the writer in hand
                return "unread"
            await tasks.join(connection, task)
            stored = await tasks.parts_stored(connection, kb, task.graph_key)
        for number, part in enumerate(_parts(chunks, self._settings.graph.part)):
            document = f"{task.graph_key}-{number:04d}"
            if stored.get(document) == "processed":
                continue
            if number and asyncio.get_running_loop().time() >= end:
                raise _BatchOver
            texts = [chunk.embedded_text for chunk in part]
            self.vectors.expect(texts)
            numbered = [(chunk.ordinal, text) for chunk, text in zip(part, texts, strict=True)]
            await self.session.call(hold, "insert", document=document, key=task.graph_key, chunks=numbered)
        async with self.writer.fenced(hold) as connection:
            await tasks.end(connection, task, "done")
        return "done"

    async def _remove(self, task: GraphTask, hold: Hold, end: float) -> str:
        kb = task.knowledge_base_id
        async with self.writer.fenced(hold) as connection:
            if await tasks.leave(connection, task) > 0:
                await tasks.end(connection, task, "done")
                return "done"
            stored = await tasks.parts_stored(connection, kb, task.graph_key)
        if self._answers is not None:
            await self._answers.expect(task)
        for number, document in enumerate(stored):
            if number and asyncio.get_running_loop().time() >= end:
                raise _BatchOver
            await self.session.call(hold, "remove", document=document)
        async with self.writer.fenced(hold) as connection:
            await tasks.forget_key(connection, kb, task.graph_key)
            await tasks.end(connection, task, "done")
        return "done"


def _parts(chunks: list[Chunk], size: int) -> list[list[Chunk]]:
    return [chunks[at : at + size] for at in range(0, len(chunks), size)]
