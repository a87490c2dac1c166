"""The reading half of the graph: texts are given to the language model by every worker at once, without the writer.

A reader claims a text by its task's row, keeps the claim while the model works, and marks the task as read; whoever can write takes it
from there. As many readers run as the model may be called at once, so short texts fill its calls as well as long ones do. A claim
that is not renewed for `graph.lease` is anybody's again: a worker that dies costs the calls that were out, not what was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import DatabaseUnavailable, InternalError, ShieldError
from shield.knowledge.graph import tasks
from shield.knowledge.graph.extract import LlmExtractor
from shield.knowledge.graph.model import NOBODY, Observer
from shield.knowledge.graph.turns import Turns
from shield.knowledge.graph.verdict import settle
from shield.settings import Settings

log = structlog.get_logger(__name__)

_LAST_WORDS = 1.0  # seconds that a renewal under way may take when its reader ends


class TextReader:
    """Reads one text at a time; several share the extractor and the knowledge bases' turns."""

    def __init__(
        self,
        engine: AsyncEngine,
        extractor: LlmExtractor,
        turns: Turns,
        settings: Settings,
        done: Callable[[], None],
        *,
        observer: Observer = NOBODY,
    ) -> None:
        self._engine, self._extractor, self._turns, self._settings, self._done = engine, extractor, turns, settings, done
        self._observer = observer

    async def step(self) -> bool:
        """Read the next text; False if none waits.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        with database_errors():
            claim = await tasks.claim(self._engine, self._extractor.name, self._turns.served, self._settings.graph.lease)
            if claim is None:
                return False
            self._turns.serve(claim.task.knowledge_base_id)
            await self._read(_Kept(self._engine, claim, self._settings))
            return True

    async def _read(self, kept: _Kept) -> None:
        task = kept.claim.task
        try:
            with database_errors():
                async with kept.renewing():
                    async with self._engine.connect() as connection:
                        chunks = await tasks.chunks_of(connection, task.knowledge_base_id, task.graph_key)
                    await self._extractor.read(task, [chunk.embedded_text for chunk in chunks])
        except (DatabaseUnavailable, asyncio.CancelledError):
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                await tasks.let_go(self._engine, kept.claim)
            raise
        except Exception as error:  # noqa: BLE001  the border of a text: whatever is wrong with it, others are read
            if not isinstance(error, ShieldError):
                log.error("graph.reading_failed", error=type(error).__name__)  # noqa: TRY400  a traceback may quote the text
            await self._failed(kept.claim, error if isinstance(error, ShieldError) else InternalError())
            return
        await tasks.let_go(self._engine, kept.claim, self._extractor.name)
        self._observer.step("read", "done")
        self._done()

    async def _failed(self, claim: tasks.Claim, error: ShieldError) -> None:
        async with self._engine.begin() as connection:
            if not await tasks.count_try(connection, claim):
                return
            verdict = await settle(connection, claim.task, error, claim.task.errors + 1, self._settings.jobs)
        self._observer.step("read", verdict)


class _Kept:
    """A claim over time. One that is lost costs no more than the calls that are out, so reading goes on."""

    def __init__(self, engine: AsyncEngine, claim: tasks.Claim, settings: Settings) -> None:
        self._engine, self.claim, self._lease = engine, claim, settings.graph.lease

    @contextlib.asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """Keep it meanwhile."""
        over = asyncio.Event()
        keeper = asyncio.create_task(self._renew(over))
        try:
            yield
        finally:
            over.set()
            _, late = await asyncio.wait({keeper}, timeout=_LAST_WORDS)
            for task in late:
                task.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _renew(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self._lease.total_seconds() / 3)
                return
            with contextlib.suppress(DatabaseUnavailable), database_errors():
                renewed = await tasks.renew(self._engine, self.claim, self._lease)
                if renewed is None:
                    return
                self.claim = renewed
