"""The controller of KnowledgeBases: keeps the orchestrator's base and the object's status in line with the spec.

`status.activeEmbedding` and the counts are what the orchestrator said last, at `lastUpdatedTime`; while it does not answer they grow old, and
no condition changes for it. A base is looked at often while something happens in it: it moves, its counts change, or an IngestJob stores
documents in it, which the controller of IngestJobs tells (`active`). The finalizer is written before anything is stored, and taken away only when nothing is left: after a job
that proved it, or if the base was never this namespace's. An object that is missing deletes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from shield_operator.api.knowledgebase import DELETE_FINALIZER, ActiveEmbedding, DeletionPolicy, KnowledgeBaseCondition, KnowledgeBaseSpec
from shield_operator.api.knowledgebase import KnowledgeBaseStatus as Status
from shield_operator.api.meta import Condition, ConditionStatus, ObjectMeta, find, with_condition
from shield_operator.bases.decide import Move, Reason, Said, Step, decide_deletion, decide_move, unproven
from shield_operator.bases.port import CONFLICT, DELETING, NOT_CONFIGURED, Bases, BaseView, Space
from shield_operator.cluster import KNOWLEDGEBASES, Cluster, Key, Obj
from shield_operator.names import kb_name
from shield_operator.orchestrator import OrchestratorRefused, OrchestratorUnavailable
from shield_operator.queue import DONE, Result, WorkQueue
from shield_operator.watching import Cache, Change, Watch
from shield_operator.writes import status_patch, tell

READY, REINDEXING = KnowledgeBaseCondition.READY, KnowledgeBaseCondition.REINDEXING
_QUIET = frozenset({Reason.ORCHESTRATOR_UNAVAILABLE, Reason.DELETING})
_NOTHING_ASKED = Said(ConditionStatus.FALSE, Reason.UP_TO_DATE, "No move was asked for.")


class BaseController:
    """Makes knowledge bases of KnowledgeBases."""

    name = "knowledgebase"
    primary = KNOWLEDGEBASES
    watches: Sequence[Watch] = (Watch(KNOWLEDGEBASES),)

    def __init__(
        self,
        bases: Cache,
        cluster: Cluster,
        client: Bases | None,
        queue: WorkQueue[Key],
        *,
        workers: int = 4,
        interval: float = 30.0,
        deletion_interval: float = 5.0,
        retry_pause: float = 600.0,
        heartbeat: float = 300.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A controller on this cache.

        Args:
            bases: what is known of KnowledgeBases.
            cluster: what is written through.
            client: the orchestrator; None if the operator was told of none.
            queue: its keys.
            workers: how many bases to ask for at once.
            interval: seconds between two looks at a base in which something happens.
            deletion_interval: seconds between two looks at a deletion.
            retry_pause: seconds after which a job that failed is tried again.
            heartbeat: seconds between two looks at one in which nothing does, and after which `lastUpdatedTime` is renewed.
            now: the time.
            clock: for intervals.
        """
        self.queue = queue
        self.workers = workers
        self._bases = bases
        self._cluster = cluster
        self._client = client
        self._interval, self._deletion_interval = interval, deletion_interval
        self._retry_pause, self._heartbeat = timedelta(seconds=retry_pause), timedelta(seconds=heartbeat)
        self._now, self._clock = now, clock
        self._looked: dict[Key, tuple[str, int, float]] = {}  # uid, generation, when: only to ask no more often than need be

    def keys_of(self, change: Change) -> Iterable[Key]:
        """The base itself."""
        return (change.key,) if change.kind == KNOWLEDGEBASES else ()

    def active(self, key: Key) -> None:
        """Something is being stored in it: look at its counts soon."""
        self._looked.setdefault(key, ("", 0, 0.0))
        self.queue.add_after(key, self._interval)

    async def background(self) -> None:
        """Nothing: each base wakes itself."""

    async def reconcile(self, key: Key) -> Result:
        """Bring one base in line."""
        obj = self._bases.get(key)
        if obj is None:
            self._looked.pop(key, None)
            return DONE
        meta = ObjectMeta.model_validate(obj["metadata"])
        if meta.deleting:
            return await self._delete(key, obj, meta)
        old = _status_of(obj)
        try:
            spec = KnowledgeBaseSpec.model_validate(obj.get("spec") or {})
        except ValidationError as error:
            first = error.errors()[0]
            said = Said(ConditionStatus.FALSE, Reason.INVALID_SPEC, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
            await self._write(key, obj, old, self._said(old, meta, said))
            return DONE
        finalized = await self._finalized(key, obj, meta, wanted=spec.deletion_policy is DeletionPolicy.DELETE)
        wait = self._not_yet(key, meta, old)
        if wait is not None:
            return Result(wait)
        new = await self._ensure(key, finalized, meta, spec)
        self._looked[key] = (meta.uid, meta.generation, self._clock())
        return Result(self._heartbeat.total_seconds() if _quiet(old, new) else self._interval)

    # -- a base that lives --------------------------------------------------------------------------------------------

    def _not_yet(self, key: Key, meta: ObjectMeta, status: Status) -> float | None:
        """Seconds to leave it alone. A process that has just begun goes by the status, so that it does not ask for all bases at once."""
        if key in self._looked:
            uid, generation, at = self._looked[key]
            wait = at + self._interval - self._clock()
            return wait if (uid, generation) == (meta.uid, meta.generation) and wait > 0 else None
        if status.last_updated_time is None or status.observed_generation != meta.generation or not _quiet(status, status):
            return None
        left = status.last_updated_time + self._heartbeat - self._now()
        return min(left, self._heartbeat).total_seconds() if left > timedelta() else None

    async def _ensure(self, key: Key, obj: Obj, meta: ObjectMeta, spec: KnowledgeBaseSpec) -> Status:
        """Make it as the spec says, and its status as it is; the status."""
        old = _status_of(obj)
        wish = _wish(spec)
        try:
            client = self._required()
            name = kb_name(*key)
            view = await client.ensure(key.namespace, name, description=spec.description or "", graph=spec.graph, embedding=wish)
            said = await self._move(client, view, wish, old, meta)
        except OrchestratorUnavailable as error:
            if error.code == NOT_CONFIGURED:
                refusal = Said(ConditionStatus.FALSE, Reason.EMBEDDING_NOT_CONFIGURED, f"The orchestrator has no model {wish} configured.")
                return await self._write(key, obj, old, self._said(old, meta, refusal))
            if find(old.conditions, READY) is None:  # else it stays what it was: that nobody answers makes nothing of it untrue
                waiting = Said(ConditionStatus.UNKNOWN, Reason.ORCHESTRATOR_UNAVAILABLE, "The orchestrator does not answer.")
                await self._write(key, obj, old, self._said(old, meta, waiting))
            raise
        except OrchestratorRefused as error:
            return await self._write(key, obj, old, self._said(old, meta, _refusal(error)))
        return await self._write(key, obj, old, self._seen(old, meta, spec, view, said))

    async def _move(self, client: Bases, view: BaseView, wish: Space | None, old: Status, meta: ObjectMeta) -> Said:
        """What Reindexing says, once what there is to ask for was asked for."""
        job = await client.job(view.reindex.job_id) if view.reindex is not None and view.reindex.job_id else None
        decision = decide_move(
            wish,
            view,
            job,
            was=find(old.conditions, REINDEXING),
            generation=meta.generation,
            now=self._now(),
            pause=self._retry_pause,
        )
        if wish is None or decision.move is Move.NOTHING:
            return decision.said
        try:
            if decision.move is Move.REINDEX:
                await client.reindex(view.name, wish)
            else:
                await client.rollback(view.name)
        except OrchestratorRefused as error:
            return Said(ConditionStatus.FALSE, Reason.REFUSED, f"The move to {wish} was refused: {error}.")
        except OrchestratorUnavailable as error:
            if error.code != NOT_CONFIGURED:
                raise
            return Said(ConditionStatus.FALSE, Reason.EMBEDDING_NOT_CONFIGURED, f"The orchestrator has no model {wish} configured.")
        return decision.said

    def _seen(self, old: Status, meta: ObjectMeta, spec: KnowledgeBaseSpec, view: BaseView, moving: Said) -> Status:
        wish = _wish(spec)
        active = wish if wish is not None and moving.reason is Reason.UP_TO_DATE else view.embedding  # a rollback takes effect at once
        numbers = {
            "knowledge_base": view.name,
            "active_embedding": ActiveEmbedding(model=active.model, dimension=active.dim),
            "documents": view.documents,
            "chunks": view.chunks,
        }
        said = Said(ConditionStatus.TRUE, Reason.AVAILABLE, f"It is {view.name} in the orchestrator.")
        if view.graph != spec.graph:
            which = "with" if view.graph else "without"
            message = f"The base exists already, {which} a graph, which cannot be changed. Make this object anew with graph: {str(view.graph).lower()}."
            said = Said(ConditionStatus.FALSE, Reason.GRAPH_DIFFERS, message)
        new = self._said(old.model_copy(update=numbers), meta, said, moving)
        now = self._now()
        stale = old.last_updated_time is None or now >= old.last_updated_time + self._heartbeat
        if stale or any(getattr(old, name) != value for name, value in numbers.items()):
            new = new.model_copy(update={"last_updated_time": now.replace(microsecond=0)})
        return new

    # -- its end ------------------------------------------------------------------------------------------------------

    async def _delete(self, key: Key, obj: Obj, meta: ObjectMeta) -> Result:
        """Delete what the base holds, if its policy says so; then let the object go."""
        if DELETE_FINALIZER not in meta.finalizers:
            return DONE
        spec = obj.get("spec") or {}
        if spec.get("deletionPolicy") != DeletionPolicy.DELETE:
            await self._finalized(key, obj, meta, wanted=False)
            return DONE
        old = _status_of(obj)
        try:
            said = await self._deleted(key, meta, graph=spec.get("graph", True) is not False)
        except OrchestratorUnavailable:
            waiting = Said(
                ConditionStatus.FALSE, Reason.ORCHESTRATOR_UNAVAILABLE, "Its knowledge is deleted once the orchestrator answers."
            )
            await self._write(key, obj, old, self._said(old, meta, waiting))
            raise
        except OrchestratorRefused as error:
            said = Said(ConditionStatus.FALSE, Reason.DELETION_FAILED, f"The orchestrator refused to delete its knowledge: {error}.")
        if said is None:
            await self._finalized(key, obj, meta, wanted=False)
            return DONE
        await self._write(key, obj, old, self._said(old, meta, said))
        return Result(self._deletion_interval)

    async def _deleted(self, key: Key, meta: ObjectMeta, *, graph: bool) -> Said | None:
        """Take the deletion a step further; None once nothing of this namespace's is left."""
        client, name, now = self._required(), kb_name(*key), self._now()
        since = meta.deletion_timestamp or now
        exists = await client.exists(name)
        deletion = decide_deletion(await client.deletions(name), since, exists=exists, now=now, pause=self._retry_pause)
        if deletion.step is Step.RELEASE and deletion.job is not None:
            proven = await client.job(deletion.job.job_id)
            return unproven(proven) if proven is not None and proven.proof is not None and proven.proof.hits else None
        if deletion.step is Step.RETRY and deletion.job is not None:
            await client.retry(deletion.job.job_id)
        if deletion.step is Step.BEGIN:
            try:  # whose it is, only this call tells; a base that is missing is made, so that its deletion can be proven
                await client.ensure(key.namespace, name, description="", graph=graph, embedding=None)
            except OrchestratorRefused as error:
                if error.code == CONFLICT:
                    return None
                if error.code == DELETING:
                    return Said(ConditionStatus.FALSE, Reason.DELETING, "An earlier deletion of it has not ended.")
                raise
            job = await client.delete(name)
            return Said(ConditionStatus.FALSE, Reason.DELETING, f"Job {job.job_id} deletes its knowledge.")
        return deletion.said

    # -- writes -------------------------------------------------------------------------------------------------------

    def _required(self) -> Bases:
        if self._client is None:
            raise OrchestratorUnavailable("no orchestrator is configured")
        return self._client

    async def _finalized(self, key: Key, obj: Obj, meta: ObjectMeta, *, wanted: bool) -> Obj:
        """The object with our finalizer, or without it; the others stay."""
        if wanted == (DELETE_FINALIZER in meta.finalizers):
            return obj
        others = [one for one in meta.finalizers if one != DELETE_FINALIZER]
        body = {"metadata": {"resourceVersion": meta.resource_version, "finalizers": [*others, DELETE_FINALIZER] if wanted else others}}
        new = await self._cluster.patch(KNOWLEDGEBASES, *key, body)
        if not meta.deleting:
            self._bases.wrote(new)
        return new

    def _said(self, status: Status, meta: ObjectMeta, ready: Said, moving: Said | None = None) -> Status:
        """The status with its conditions; Reindexing stays as it is if nothing is said of it."""
        if moving is None and find(status.conditions, REINDEXING) is None:
            moving = _NOTHING_ASKED
        conditions = status.conditions
        for type_, said in ((READY, ready), (REINDEXING, moving)):
            if said is not None:
                condition = Condition(
                    type=type_,
                    status=said.status,
                    reason=said.reason.value,
                    message=said.message[:1024],
                    observed_generation=meta.generation,
                    last_transition_time=self._now(),
                )
                conditions = with_condition(conditions, condition)
        return status.model_copy(update={"conditions": conditions, "observed_generation": meta.generation})

    async def _write(self, key: Key, obj: Obj, old: Status, new: Status) -> Status:
        patch = status_patch(old, new)
        if not patch:
            return new
        body = {"metadata": {"uid": obj["metadata"]["uid"]}, "status": patch}
        self._bases.wrote(await self._cluster.patch(KNOWLEDGEBASES, *key, body, subresource="status"))
        for type_ in (READY, REINDEXING):
            event = _event(find(old.conditions, type_), find(new.conditions, type_))
            if event is not None:
                reason, message = event
                await tell(self._cluster, KNOWLEDGEBASES, obj, reason=reason, message=message, warning=reason == "Failed", now=self._now())
        return new


def _quiet(old: Status, new: Status) -> bool:
    """Nothing happens in it: no number changed since the last look, and nothing is wished for that is not so."""
    ready, moving = find(new.conditions, READY), find(new.conditions, REINDEXING)
    settled = ready is not None and ready.true and moving is not None and moving.reason == Reason.UP_TO_DATE
    return settled and (old.documents, old.chunks) == (new.documents, new.chunks)


def _event(was: Condition | None, now: Condition | None) -> tuple[str, str] | None:
    """The Event of a condition that says something new, if people want to hear it."""
    if now is None or (was is not None and was.reason == now.reason) or now.reason in _QUIET:
        return None
    if now.reason == Reason.RUNNING:
        return "Started", now.message
    if now.reason in {Reason.AVAILABLE, Reason.UP_TO_DATE}:
        return ("Succeeded", now.message) if was is not None and was.reason != now.reason else None
    return "Failed", now.message


def _refusal(error: OrchestratorRefused) -> Said:
    if error.code == CONFLICT:
        return Said(ConditionStatus.FALSE, Reason.NAME_CONFLICT, "A base of its name in the orchestrator is somebody else's.")
    if error.code == DELETING:
        return Said(ConditionStatus.FALSE, Reason.DELETING, "The base of its name is being deleted; it is made anew afterwards.")
    return Said(ConditionStatus.FALSE, Reason.REFUSED, f"The orchestrator refused it: {error}.")


def _wish(spec: KnowledgeBaseSpec) -> Space | None:
    return Space(model=spec.embedding.model, dim=spec.embedding.dimension) if spec.embedding else None


def _status_of(obj: Obj) -> Status:
    status: dict[str, Any] = obj.get("status") or {}
    return Status.model_validate(status)
