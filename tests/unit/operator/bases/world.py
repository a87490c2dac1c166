"""A cluster and a library in memory, with the controller of KnowledgeBases at work on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shield_operator.bases.port import Space
from shield_operator.bases.reconcile import BaseController
from shield_operator.cluster import KNOWLEDGEBASES, Key, Obj
from shield_operator.metrics import Metrics
from shield_operator.orchestrator import OrchestratorUnavailable
from shield_operator.queue import Result, WorkQueue
from tests.unit.operator.bases.library import Library
from tests.unit.operator.memory_cluster import MemoryCluster

KEY = Key("team", "docs")
NAME = "team--docs"
BGE = Space(model="bge-m3", dim=1024)
AWAY = OrchestratorUnavailable("away")


class World:
    """A cluster, a library, a clock, and an operator that can be started anew."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
        self.cluster = MemoryCluster(lambda: self.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.library = Library(lambda: self.now)
        self.restart()

    def restart(self) -> None:
        queue: WorkQueue[Key] = WorkQueue("knowledgebase", Metrics())
        self.operator = BaseController(
            self.cluster.cache(KNOWLEDGEBASES), self.cluster, self.library, queue, now=lambda: self.now, clock=self._seconds
        )

    def _seconds(self) -> float:
        return self.now.timestamp()

    def base(self, **spec: Any) -> Obj:
        old = self.cluster.of(KNOWLEDGEBASES).get("docs")
        obj = {**old, "spec": spec} if old else {"metadata": {"name": "docs", "namespace": "team"}, "spec": spec}
        return self.cluster.put(KNOWLEDGEBASES, obj)

    def moving(self, space: Space, **spec: Any) -> Obj:
        return self.base(embedding={"model": space.model, "dimension": space.dim}, **spec)

    async def look(self, seconds: float = 30) -> Result:
        self.now += timedelta(seconds=seconds)
        return await self.operator.reconcile(KEY)

    @property
    def obj(self) -> Obj | None:
        return self.cluster.of(KNOWLEDGEBASES).get("docs")

    @property
    def status(self) -> Obj:
        assert self.obj is not None
        status: Obj = self.obj.get("status") or {}
        return status

    def why(self, type_: str) -> tuple[str, str]:
        condition = next(condition for condition in self.status["conditions"] if condition["type"] == type_)
        return condition["status"], condition["reason"]

    @property
    def finalizers(self) -> list[str]:
        assert self.obj is not None
        return list(self.obj["metadata"].get("finalizers") or [])
