"""Rows end with their IngestJob: at once where its deletion is seen, and by a sweep where it was not.

A cancellation that does not reach the orchestrator is tried again until it does. The sweep asks the orchestrator first which rows of IngestJobs
have not ended, and lists IngestJobs *afterwards*, from the API server and not from a cache: a row is cancelled only if the list, which is newer than
the row, does not have its IngestJob, or has it as ended. An operator that serves some namespaces asks for the rows of those alone, as it cannot
tell a deleted IngestJob of another one from one that it may not see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import structlog

from shield_operator.cluster import INGESTJOBS, Cluster, ClusterError, Obj
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import BATCH, Orchestrator, OrchestratorError

log = structlog.get_logger(__name__)


class Canceller:
    """Cancellations on their way."""

    def __init__(self, orchestrator: Orchestrator | None, metrics: Metrics, *, retry: float) -> None:
        self._orchestrator = orchestrator
        self._metrics = metrics
        self._retry = retry
        self._wanted: dict[str, None] = {}
        self._news = asyncio.Event()
        self.running = False
        """`run` is."""

    def __len__(self) -> int:
        return len(self._wanted)

    def add(self, uid: str, why: str) -> None:
        """End this row, where it has not ended."""
        if self._orchestrator is not None and uid not in self._wanted:
            self._wanted[uid] = None
            self._metrics.rows_cancelled.labels(why).inc()
            self._news.set()

    async def run(self) -> None:
        """Send what was added, until cancelled."""
        self.running = True
        try:
            while True:
                await self._news.wait()
                if not await self.send():
                    await asyncio.sleep(self._retry)
        finally:
            self.running = False

    async def send(self) -> bool:
        """Send everything that waits; False if something still does."""
        self._news.clear()
        while self._wanted and self._orchestrator is not None:
            batch = list(self._wanted)[:BATCH]
            try:
                await self._orchestrator.cancel(batch)
            except OrchestratorError as error:
                log.warning("cancel.failed", rows=len(batch), error=str(error))
                self._news.set()
                return False
            for uid in batch:  # the sweep sends too, perhaps at the same time
                self._wanted.pop(uid, None)
        return True


async def sweep(
    cluster: Cluster, orchestrator: Orchestrator, canceller: Canceller, known: Collection[str] = (), *, namespaces: Sequence[str] = ()
) -> int:
    """Cancel rows whose IngestJob is gone or has ended; tells how many. Those `known` to be there are not looked at; without namespaces, all are.

    Raises:
        OrchestratorError: it did not answer; nothing was cancelled.
        ClusterError: the API server did not answer; nothing was cancelled.
    """
    suspects = {uid async for page in orchestrator.active(namespaces) for uid in page}.difference(known)
    if not suspects:
        return 0
    alive: set[str] = set()
    for namespace in namespaces or ("",):
        async for listed in cluster.list(INGESTJOBS, namespace):
            alive.update(obj["metadata"]["uid"] for obj in listed.items if not _ended(obj))
    orphans = suspects - alive
    for uid in orphans:
        canceller.add(uid, "sweep")
    if orphans:
        log.info("sweep.cancelled", rows=len(orphans))
        await canceller.send()
    return len(orphans)


async def sweep_for_ever(
    cluster: Cluster,
    orchestrator: Orchestrator,
    canceller: Canceller,
    *,
    known: Callable[[], Collection[str]],
    interval: float,
    namespaces: Sequence[str] = (),
) -> None:
    """Sweep everything until it worked once, and then every `interval` seconds what is not known, until cancelled."""
    swept = False
    while True:
        with suppress(OrchestratorError, ClusterError):  # nothing was done, and the next one comes
            await sweep(cluster, orchestrator, canceller, known() if swept else (), namespaces=namespaces)
            swept = True
        await asyncio.sleep(interval)


def _ended(obj: Obj) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(one["type"] in {"Complete", "Failed"} and one["status"] == "True" for one in conditions)
