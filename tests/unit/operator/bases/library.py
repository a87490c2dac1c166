"""The port `Bases` in memory, with the orchestrator's rules: owners, one reindex at a time, kept collections, deletion as a job.

Jobs do not run by themselves: a test says how the next one ends. The real orchestrator is met in tests/kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shield_operator.bases.port import CONFLICT, DELETING, NOT_FOUND, BaseView, CollectionView, JobError, KbJob, ReindexView, Space
from shield_operator.orchestrator import OrchestratorRefused, OrchestratorUnavailable

FOUNDING = Space(model="builtin", dim=384)


@dataclass
class Base:
    """One knowledge base."""

    owner: str
    graph: bool
    live: Space
    description: str = ""
    documents: int = 0
    deleting: bool = False
    others: dict[Space, str] = field(default_factory=dict)
    flipped: list[Space] = field(default_factory=list)


class Library:
    """An orchestrator in memory."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.bases: dict[str, Base] = {}
        self.all_jobs: list[KbJob] = []
        self.targets: dict[str, tuple[str, Space | None]] = {}
        self.calls: list[str] = []
        self.away: OrchestratorUnavailable | None = None
        self.away_from: str = ""
        self._now = now

    # -- the port -----------------------------------------------------------------------------------------------------

    async def ensure(self, namespace: str, name: str, *, description: str, graph: bool, embedding: Space | None) -> BaseView:
        self._called("ensure")
        owner = f"k8s:{namespace}"
        base = self.bases.setdefault(name, Base(owner, graph, FOUNDING if graph or embedding is None else embedding))
        if base.owner != owner:
            raise OrchestratorRefused(409, CONFLICT, "somebody else's")
        if base.deleting:
            raise OrchestratorRefused(409, DELETING, "being deleted")
        base.description = description
        collections = [CollectionView(model=base.live.model, dim=base.live.dim, state="live")]
        collections += [
            CollectionView(model=space.model, dim=space.dim, state=state, flipped_at=self._now() if state == "retired" else None)
            for space, state in base.others.items()
        ]
        return BaseView(
            name=name,
            graph=base.graph,
            documents=base.documents,
            chunks=base.documents * 3,
            embedding=base.live,
            collections=tuple(collections),
            reindex=self._reindexing(name, base),
        )

    async def exists(self, name: str) -> bool:
        self._called("exists")
        return name in self.bases and not self.bases[name].deleting

    async def reindex(self, name: str, embedding: Space) -> KbJob:
        self._called("reindex")
        base = self._base(name)
        assert base.live != embedding
        base.others[embedding] = "shadow"
        return self._job("reindex", name, embedding)

    async def rollback(self, name: str) -> None:
        self._called("rollback")
        base = self._base(name)
        kept = next(space for space, state in base.others.items() if state == "retired")
        self.flip(name, kept)

    async def delete(self, name: str) -> KbJob:
        self._called("delete")
        self._base(name)
        return self._job("delete", name, None)

    async def retry(self, job_id: str) -> KbJob:
        self._called("retry")
        old = next(job for job in self.all_jobs if job.job_id == job_id)
        assert old.status in {"failed", "cancelled"}
        return self._job(old.kind, *self.targets[job_id])

    async def job(self, job_id: str) -> KbJob | None:
        self._called("job")
        return next((job for job in self.all_jobs if job.job_id == job_id), None)

    async def deletions(self, name: str) -> Sequence[KbJob]:
        self._called("deletions")
        return [job for job in reversed(self.all_jobs) if job.kind == "delete" and self.targets[job.job_id][0] == name]

    # -- the orchestrator's own life ----------------------------------------------------------------------------------

    def end(self, status: str = "completed", code: str = "") -> None:
        """End the newest job."""
        job = self.all_jobs[-1]
        error = JobError(code=code) if code else None
        self.all_jobs[-1] = job.model_copy(update={"status": status, "error": error, "finished_at": self._now()})
        name, space = self.targets[job.job_id]
        if job.kind == "delete" and status == "completed":
            del self.bases[name]
        elif job.kind == "delete" and code:
            self.bases[name].deleting = True
        elif space is not None and status == "completed":
            self.flip(name, space)

    def begin_deletion(self, name: str) -> None:
        """The job's first step: readers no longer meet the base."""
        self.bases[name].deleting = True

    def flip(self, name: str, to: Space) -> None:
        """Answer from this collection."""
        base = self.bases[name]
        base.others.pop(to, None)
        base.others[base.live] = "retired"
        base.live = to

    def _reindexing(self, name: str, base: Base) -> ReindexView | None:
        for job in reversed(self.all_jobs):
            target, space = self.targets[job.job_id]
            if target == name and space is not None and base.others.get(space) in {"shadow", "ready"}:
                state = "ready" if base.others[space] == "ready" else "running"
                return ReindexView(embedding=space, state=state, job_id=job.job_id)
        return None

    def _job(self, kind: str, name: str, space: Space | None) -> KbJob:
        job = KbJob(job_id=f"job-{len(self.all_jobs) + 1}", kind=kind, status="pending", created_at=self._now())
        self.all_jobs.append(job)
        self.targets[job.job_id] = (name, space)
        return job

    def _base(self, name: str) -> Base:
        base = self.bases.get(name)
        if base is None or base.deleting:
            raise OrchestratorRefused(404, NOT_FOUND, "no such base")
        return base

    def _called(self, what: str) -> None:
        if self.away is not None and self.away_from in {"", what}:
            raise self.away
        self.calls.append(what)
