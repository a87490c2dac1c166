"""What the orchestrator says about rows: all active ones every few seconds, a single one when a decision hangs on it.

One call asks for up to a thousand rows. Questions about single rows that come within a few milliseconds travel together, so a hundred Jobs that
end in the same second cost a call or two. What was heard last stays until it is renewed: an orchestrator that is away makes progress stale, and
`lastUpdatedTime` says so, but changes nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from shield_operator.metrics import Metrics
from shield_operator.orchestrator import BATCH, Orchestrator, OrchestratorError, OrchestratorUnavailable, Row

log = structlog.get_logger(__name__)


class Rows:
    """Rows by the uid of their IngestJob."""

    def __init__(
        self,
        orchestrator: Orchestrator | None,
        metrics: Metrics,
        *,
        batch_delay: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._orchestrator = orchestrator
        self._delay = batch_delay
        self._clock = clock
        self._known: dict[str, Row] = {}
        self._moved: dict[str, tuple[object, float]] = {}
        """How far a row was, and when it was first seen there."""
        self._asked: dict[str, asyncio.Future[Row | None]] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._heard = clock()
        metrics.progress_age.set_function(lambda: self._clock() - self._heard if self._orchestrator else 0.0)
        metrics.stalled.set_function(self._stalled)

    @property
    def served(self) -> bool:
        """There is an orchestrator to ask."""
        return self._orchestrator is not None

    def known(self, uid: str) -> Row | None:
        """What was heard last."""
        return self._known.get(uid)

    def forget(self, uid: str) -> None:
        """Nobody will ask again."""
        self._known.pop(uid, None)
        self._moved.pop(uid, None)

    async def fresh(self, uid: str) -> Row | None:
        """The row as it is now; None if there is none, or nobody to ask.

        Raises:
            OrchestratorError: it did not answer, or said no.
        """
        if self._orchestrator is None:
            return None
        future = self._asked.get(uid)
        if future is None:
            future = self._asked[uid] = asyncio.get_running_loop().create_future()
            if len(self._asked) == 1:
                task = asyncio.create_task(self._ask_soon(self._orchestrator))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        return await asyncio.shield(future)

    async def refresh(self, uids: Iterable[str]) -> list[str]:
        """Ask for all of these; tells those with news. Rows of others, and rows that are gone, are forgotten.

        Raises:
            OrchestratorError: it did not answer, or said no.
        """
        if self._orchestrator is None:
            return []
        wanted = list(uids)
        news: list[str] = []
        there: set[str] = set()
        for start in range(0, len(wanted), BATCH):
            rows = await self._orchestrator.progress(wanted[start : start + BATCH])
            self._heard = self._clock()
            there.update(rows)
            for uid, row in rows.items():
                self._watch(uid, (row.status, row.stage, row.progress))
                if self._known.get(uid) != row:
                    self._known[uid] = row
                    news.append(uid)
        self._heard = self._clock()  # where nothing is active, nothing was left untold
        for uid in set(self._known) - there:
            self.forget(uid)
        return news

    def _watch(self, uid: str, place: object) -> None:
        if self._moved.get(uid, (None,))[0] != place:
            self._moved[uid] = place, self._heard

    def _stalled(self) -> float:
        """How long the one that has waited longest has shown no progress; read at each scrape, in this loop's thread."""
        return self._clock() - min(since for _, since in self._moved.values()) if self._moved else 0.0

    async def _ask_soon(self, orchestrator: Orchestrator) -> None:
        asked = self._asked
        try:
            await asyncio.sleep(self._delay)
            self._asked = {}
            rows = await orchestrator.progress(list(asked))
        except OrchestratorError as error:
            for future in asked.values():
                future.set_exception(OrchestratorUnavailable(str(error)))
                future.exception()  # whoever asked may have given up
            return
        except asyncio.CancelledError:
            for future in asked.values():
                future.cancel()
            raise
        self._known |= rows
        for uid, future in asked.items():
            future.set_result(rows.get(uid))

    async def close(self) -> None:
        """Nobody waits any more."""
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
