"""A cluster and an orchestrator in memory, with the controller of IngestJobs at work on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from shield_operator.cluster import EVENTS, INGESTJOBS, JOBS, KNOWLEDGEBASES, Key, Obj
from shield_operator.ingestjobs.job import Pods
from shield_operator.ingestjobs.reconcile import WATCHES, IngestJobs
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import OrchestratorUnavailable, Row
from shield_operator.queue import Result
from shield_operator.settings import Settings
from shield_operator.watching import Change
from tests.unit.operator.api_server import ApiServer

KEY = Key("team", "crawl")


class Orchestrator:
    """Rows that a test sets; `away` refuses everything."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.cancelled: list[str] = []
        self.calls = 0
        self.away = False

    async def progress(self, uids: Sequence[str]) -> dict[str, Row]:
        self.calls += 1
        if self.away:
            raise OrchestratorUnavailable("away")
        return {uid: self.rows[uid] for uid in uids if uid in self.rows}

    async def cancel(self, uids: Sequence[str]) -> None:
        if self.away:
            raise OrchestratorUnavailable("away")
        self.cancelled += uids


class World:
    """A cluster, an orchestrator, a time, and an operator that can be started anew."""

    def __init__(self, **settings: Any) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
        self.cluster = ApiServer(self.text)
        self.orchestrator = Orchestrator()
        self.settings = Settings(worker_image="shield:test", row_batch_delay=0.001, **settings)
        self.changes: list[Change] = []
        self.stored: list[Key] = []
        self.metrics = Metrics()
        self.restart()
        self.base()

    def text(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def restart(self) -> None:
        self.cluster._caches.clear()
        self.metrics_before, self.metrics = self.metrics, Metrics()
        caches = {}
        for watch in WATCHES:
            cache = self.cluster.cache(watch.kind, self.heard)
            cache.watch = watch
            caches[watch.kind.plural] = cache
        orchestrator: Any = self.orchestrator
        self.operator = IngestJobs(
            self.settings,
            self.cluster,
            caches,
            orchestrator,
            self.metrics,
            pods=Pods("shield:test"),
            stored=self.stored.append,
            now=lambda: self.now,
        )

    def heard(self, change: Change) -> None:
        self.changes.append(change)
        for key in self.operator.keys_of(change) if hasattr(self, "operator") else ():
            self.operator.queue.add(key)

    def base(self, *, ready: bool = True) -> None:
        conditions = [{"type": "Ready", "status": str(ready), "reason": "Ready", "lastTransitionTime": self.text()}]
        self.cluster.put(
            KNOWLEDGEBASES, {"metadata": {"name": "docs", "namespace": "team"}, "spec": {}, "status": {"conditions": conditions}}
        )

    def ingestjob(self, *, name: str = "crawl", labels: dict[str, str] | None = None, **spec: Any) -> Obj:
        body = {"source": {"web": {"url": "https://docs.example.com/"}}, "knowledgeBase": "docs", **spec}
        return self.cluster.put(INGESTJOBS, {"metadata": {"name": name, "namespace": "team", "labels": labels or {}}, "spec": body})

    def drain(self) -> None:
        """What waits in the queue is done."""
        queue = self.operator.queue
        while (key := queue.take()) or queue._running:
            for running in [key] if key else list(queue._running):
                queue.done(running)

    def row(self, status: str, **parts: Any) -> None:
        self.orchestrator.rows[self.uid] = Row.model_validate({"uid": self.uid, "job_id": "3a0c", "status": status, **parts})

    def job_status(self, name: str = "crawl-1", **status: Any) -> None:
        self.cluster.change(JOBS, name, status=status)

    def job_ends(self, type_: str, reason: str = "") -> None:
        condition = {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": self.text()}
        self.job_status(startTime=self.text(), conditions=[condition])

    async def reconcile(self, key: Key = KEY) -> Result:
        return await self.operator.reconcile(key)

    @property
    def uid(self) -> str:
        uid: str = self.subject["metadata"]["uid"]
        return uid

    @property
    def subject(self) -> Obj:
        return self.cluster.of(INGESTJOBS)["crawl"]

    @property
    def jobs(self) -> dict[str, Obj]:
        return self.cluster.of(JOBS)

    def says(self) -> dict[str, str]:
        return {one["type"]: f"{one['status']} {one['reason']}" for one in self.subject["status"]["conditions"]}

    def told(self) -> list[str]:
        return [event["reason"] for event in self.cluster.of(EVENTS).values()]


def a_pod(**terminated: Any) -> Obj:
    return {
        "metadata": {"name": "crawl-1-x", "namespace": "team", "labels": {"batch.kubernetes.io/job-name": "crawl-1"}},
        "status": {"containerStatuses": [{"name": "worker", "state": {"terminated": terminated}}]},
    }
