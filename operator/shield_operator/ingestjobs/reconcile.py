"""The doing: gathers the view of one IngestJob, asks `decide`, and carries the plan out.

Reads come from the caches, which hold our own writes too; beyond them only what hangs on this very decision is asked for: the claim before a Job
is made, the row and the last pod when a Job has ended. A status is written with the resourceVersion that the decision saw, so a decision that
is out of date changes nothing: it fails, and the key comes again. Names of Jobs follow from the IngestJob, so what was done twice is refused once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from shield_operator.api.ingestjob import IngestJobStatus
from shield_operator.cluster import CLAIMS, INGESTJOBS, JOBS, KNOWLEDGEBASES, AlreadyExists, Cluster, Forbidden, Invalid, Key, NotFound, Obj
from shield_operator.ingestjobs.decide import Action, Do, Limits, Plan, decide
from shield_operator.ingestjobs.job import Pods, excess, job_for
from shield_operator.ingestjobs.limits import Bucket, Places
from shield_operator.ingestjobs.order import claim_of
from shield_operator.ingestjobs.pods import last_pod
from shield_operator.ingestjobs.progress import Rows
from shield_operator.ingestjobs.sweep import Canceller, sweep_for_ever
from shield_operator.ingestjobs.view import Base, Child, Claim, Subject, View, child_of, slim_job, subject_of
from shield_operator.metrics import Metrics
from shield_operator.names import INGEST_LABEL, MANAGED_BY_LABEL, MANAGER, job_name
from shield_operator.orchestrator import Orchestrator, OrchestratorError, Row
from shield_operator.queue import DONE, Backoff, Result, WorkQueue
from shield_operator.settings import Settings
from shield_operator.watching import Cache, Change, Watch
from shield_operator.writes import tell

log = structlog.get_logger(__name__)

WATCHES = (
    Watch(INGESTJOBS),
    Watch(JOBS, selector=f"{MANAGED_BY_LABEL}={MANAGER}", keep=slim_job),
    Watch(KNOWLEDGEBASES),
)


class PredecessorRemains(Exception):
    """A Job of that name still belongs to an IngestJob of the same name that was deleted; it is being collected."""

    cause = "predecessor"


class IngestJobs:
    """The controller of IngestJobs."""

    name = "ingestjob"
    primary = INGESTJOBS
    watches: Sequence[Watch] = WATCHES

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        caches: Mapping[str, Cache],
        orchestrator: Orchestrator | None,
        metrics: Metrics,
        *,
        pods: Pods,
        stored: Callable[[Key], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing runs yet.

        Args:
            settings: the operator's.
            cluster: where to write; fenced by the leadership.
            caches: by plural name; those of `watches` are used.
            orchestrator: where rows are; None: nobody knows of rows.
            metrics: where to count.
            pods: what all pods have in common.
            stored: told the KnowledgeBase in which documents were stored.
            now: the time.
        """
        self._settings = settings
        self.workers = settings.workers
        self._cluster = cluster
        self._jobs, self._children, self._bases = (caches[kind.plural] for kind in (INGESTJOBS, JOBS, KNOWLEDGEBASES))
        self._orchestrator = orchestrator
        self._metrics = metrics
        self._pods = pods
        self._stored = stored
        self._now = now
        self._maxima = settings.maxima()
        self._limits = Limits(
            row_patience=settings.row_patience, recheck=settings.recheck, job_retention=settings.job_retention, max_jobs=settings.max_jobs
        )
        self._bucket = Bucket(settings.job_rate, settings.job_burst)
        self._places = Places(settings.max_concurrent_jobs)
        self._waiting_for: dict[Key, set[Key]] = {}
        self._written: dict[str, float] = {}
        self._active: dict[str, Key] = {}
        self._untold: dict[str, tuple[Key, datetime]] = {}
        """Ended, and not known to have been told the row's last word: the orchestrator may have been away. Until when it is asked."""
        self._news: set[str] = set()
        self.rows = Rows(orchestrator, metrics, batch_delay=settings.row_batch_delay)
        self.canceller = Canceller(orchestrator, metrics, retry=settings.progress_interval)
        self.queue: WorkQueue[Key] = WorkQueue(self.name, metrics, Backoff(settings.backoff_base, settings.backoff_most))

    def keys_of(self, change: Change) -> Iterable[Key]:
        """Whom a change concerns."""
        if change.kind == INGESTJOBS:
            if change.gone:
                self.rows.forget(change.uid)
                self._written.pop(change.uid, None)
                self._active.pop(change.uid, None)
                self._untold.pop(change.uid, None)
                if self.canceller.running:  # else the sweep of whoever leads finds it
                    self.canceller.add(change.uid, "deleted")
            yield change.key
        elif change.kind == JOBS:
            job = None if change.gone else self._children.get(change.key)
            runs = job is not None and child_of(job).finish is None
            if turn := self._places.job(change.key.namespace, change.uid, runs=runs):
                yield turn
            if change.owner is not None and change.owner.kind == INGESTJOBS.kind:
                key = Key(change.key.namespace, change.owner.name)
                self._follows(change.owner.uid, key, runs=runs)
                yield key
        elif change.kind == KNOWLEDGEBASES:
            yield from self._waiting_for.pop(change.key, ())

    async def reconcile(self, key: Key) -> Result:
        """Bring one IngestJob's world in line with its spec."""
        obj = self._jobs.get(key)
        if obj is None:
            return DONE  # its children go with their owner, its row was cancelled when this was heard
        view = await self._view(subject_of(obj))
        plan = self._decide(view)
        if not plan.does(Do.CREATE_JOB):
            return await self._carry_out(obj, view, plan)
        if not self._places.reserve(key):
            return await self._carry_out(obj, view, self._decide(replace(view, place_free=False)))
        try:
            return await self._carry_out(obj, view, plan)
        finally:
            self._places.release(key)

    def _note_end(self, subject: Subject, row: Row | None) -> None:
        """Remember one that ended not long ago and may not have been told the row's last word: only the row knows an outcome."""
        status = subject.status
        told = (row is not None and row.ended) or status.outcome or not status.job_name or status.completion_time is None
        until = (
            self._now() if told or status.completion_time is None else status.completion_time + timedelta(seconds=self._settings.row_memory)
        )
        if until > self._now():
            self._untold[subject.meta.uid] = (subject.key, until)
        else:
            self._untold.pop(subject.meta.uid, None)

    def _decide(self, view: View) -> Plan:
        return decide(view, self._now(), self._limits)

    async def _view(self, subject: Subject) -> View:
        children = tuple(child_of(job) for job in self._children.children(subject.meta.uid))
        view = View(subject, children, row=self.rows.known(subject.meta.uid))
        if subject.status.finished:
            self._note_end(subject, view.row)
        if subject.spec is None or subject.status.finished or subject.meta.deleting or subject.managed_by != MANAGER:
            return view
        finished = [child for child in children if child.finish]
        if finished or (not children and subject.status.job_name):
            view = await self._with_fresh_row(view)
        if finished:
            child = max(finished, key=lambda child: child.number)
            if child.finish and not child.finish.complete and not (view.row and view.row.ended):
                view = replace(view, pod=await last_pod(self._cluster, subject.key.namespace, child.name))
            return view
        if children:
            return await self._with_stuck_pod(view, max(children, key=lambda child: child.number))
        claim = Claim.NONE if subject.spec.suspend else await self._claim(subject)
        too_much = excess(subject.spec.pod_template, self._maxima)
        return replace(view, base=self._base(subject), claim=claim, excess=too_much)

    async def _with_fresh_row(self, view: View) -> View:
        try:
            return replace(view, row=await self.rows.fresh(view.subject.meta.uid))
        except OrchestratorError as error:
            log.warning("row.unknown", key=str(view.subject.key), error=str(error))
            return replace(view, row_unknown=True)

    async def _with_stuck_pod(self, view: View, child: Child) -> View:
        spec = view.subject.spec
        age = (self._now() - child.created).total_seconds()
        if spec is None or child.running or child.suspended or age < spec.pending_deadline_seconds:
            return view
        return replace(view, pod=await last_pod(self._cluster, view.subject.key.namespace, child.name))

    def _base(self, subject: Subject) -> Base:
        name = subject.spec.knowledge_base if subject.spec else ""
        key = Key(subject.meta.namespace, name)
        found = self._bases.get(key)
        conditions = ((found or {}).get("status") or {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if found is not None and ready and "deletionTimestamp" not in found["metadata"]:
            return Base.READY
        self._waiting_for.setdefault(key, set()).add(subject.key)
        return Base.NOT_FOUND if found is None else Base.NOT_READY

    async def _claim(self, subject: Subject) -> Claim:
        claim = claim_of(subject.spec) if subject.spec else None
        if claim is None:
            return Claim.NONE
        try:
            found = await self._cluster.get(CLAIMS, subject.meta.namespace, claim.claim_name)
        except NotFound:
            return Claim.NOT_FOUND
        labelled = (found["metadata"].get("labels") or {}).get(INGEST_LABEL) == "true"
        return Claim.READABLE if labelled else Claim.NOT_LABELLED

    async def _carry_out(self, obj: Obj, view: View, plan: Plan) -> Result:
        for action in plan.actions:
            if action.do is Do.CREATE_JOB:
                objection = await self._create(view, action.number)
                if objection is not None:
                    return await self._carry_out(obj, objection, self._decide(objection))
            else:
                obj = await self._do(obj, view.subject, action)
        return DONE if plan.after is None else Result(plan.after)

    async def _create(self, view: View, number: int) -> View | None:
        """Make the Job; if the API server has something against it, the view that holds it."""
        subject = view.subject
        if subject.spec is None:
            raise ValueError("a spec that cannot be read makes no Job")
        self._metrics.throttled.inc(await self._bucket.take())
        body = job_for(subject, subject.spec, number, self._pods)
        try:
            made = await self._cluster.create(JOBS, subject.meta.namespace, body)
        except AlreadyExists:
            return await self._adopt(view, job_name(subject.meta.name, number))
        except Invalid as error:
            return replace(view, unacceptable=error.message[:1000])
        except Forbidden as error:
            return replace(view, refused=error.message[:500])
        self._children.wrote(made, created=True)
        self._places.job(subject.meta.namespace, made["metadata"]["uid"], runs=True)
        self._follows(subject.meta.uid, subject.key, runs=True)
        self._measure(subject)
        return None

    async def _adopt(self, view: View, name: str) -> View | None:
        """A Job of that name is there: ours from before a crash, a predecessor's that is being collected, or a stranger's."""
        subject = view.subject
        found = await self._cluster.get(JOBS, subject.meta.namespace, name)
        owner: Obj = next((one for one in found["metadata"].get("ownerReferences") or () if one.get("controller")), {})
        if owner.get("uid") == subject.meta.uid:
            self._children.wrote(found, created=True)
            return None
        predecessor = owner.get("kind") == INGESTJOBS.kind and owner.get("name") == subject.meta.name
        patience = subject.spec.pending_deadline_seconds if subject.spec else 0
        age = (self._now() - (subject.meta.creation_timestamp or self._now())).total_seconds()
        if predecessor and age < patience:
            raise PredecessorRemains(name)
        return replace(view, name_taken=name)

    def _measure(self, subject: Subject) -> None:
        if subject.status.conditions or subject.meta.creation_timestamp is None:
            return  # not its first Job, or it had to wait for something else than us
        self._metrics.job_latency.observe(max(0.0, (self._now() - subject.meta.creation_timestamp).total_seconds()))
        if entry := self._jobs.entry(subject.key):
            self._metrics.controller_latency.observe(max(0.0, time.monotonic() - entry.heard))

    async def _do(self, obj: Obj, subject: Subject, action: Action) -> Obj:
        """One action; the IngestJob as it is afterwards."""
        namespace, name = subject.key
        child = action.child
        if action.do is Do.WRITE_STATUS and action.status is not None:
            new, old = action.status.to_json(), obj.get("status") or {}
            patch = {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}, "status": merge_patch(old, new)}
            written = await self._cluster.patch(INGESTJOBS, namespace, name, patch, subresource="status")
            self._jobs.wrote(written)
            self._written[subject.meta.uid] = time.monotonic()
            self._written_status(subject, action.status)
            return written
        if action.do is Do.EMIT_EVENT and action.event is not None:
            event = action.event
            await tell(self._cluster, INGESTJOBS, obj, reason=event.reason, message=event.message, warning=event.warning, now=self._now())
        elif action.do is Do.CANCEL_ROW:
            self.canceller.add(subject.meta.uid, "ended")
        elif action.do is Do.DELETE_SELF:
            await self._cluster.delete(INGESTJOBS, namespace, name, uid=subject.meta.uid, version=obj["metadata"]["resourceVersion"])
        elif action.do is Do.DELETE_JOB and child is not None:
            await self._cluster.delete(JOBS, namespace, child.name, uid=child.uid)
        elif child is not None:
            spec: Obj = (
                {"activeDeadlineSeconds": action.seconds} if action.do is Do.SET_DEADLINE else {"suspend": action.do is Do.SUSPEND_JOB}
            )
            patched = await self._cluster.patch(JOBS, namespace, child.name, {"metadata": {"uid": child.uid}, "spec": spec})
            self._children.wrote(patched)
        return obj

    def _written_status(self, subject: Subject, status: IngestJobStatus) -> None:
        """Count what a status says that it did not say before."""
        before, after = ((one.progress.documents if one.progress else None) or 0 for one in (subject.status, status))
        ends = status.finished and not subject.status.finished
        if after and not before and subject.meta.creation_timestamp is not None:
            self._metrics.first_document.observe(max(0.0, (self._now() - subject.meta.creation_timestamp).total_seconds()))
        if subject.spec is not None and (after != before or ends):
            self._stored(Key(subject.meta.namespace, subject.spec.knowledge_base))
        if ends:
            complete = next(one for one in status.conditions if one.type == "Complete")
            self._metrics.ended.labels("succeeded" if complete.true else "failed").inc()
            log.info("ingestjob.ended", key=str(subject.key), uid=subject.meta.uid, reason=complete.reason)

    async def background(self) -> None:
        """Progress, cancellations and sweeps; only the leader's."""
        if self._orchestrator is None:
            await asyncio.Event().wait()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.canceller.run())
                tasks.create_task(self._follow())
                tasks.create_task(self._sweep(self._orchestrator))
        finally:
            await self.rows.close()

    async def _sweep(self, orchestrator: Orchestrator) -> None:
        await sweep_for_ever(
            self._cluster,
            orchestrator,
            self.canceller,
            known=self._jobs.uids,
            interval=self._settings.sweep_interval,
            namespaces=self._settings.namespaces,
        )

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.progress_interval * random.uniform(0.95, 1.05))  # noqa: S311  # no secret
            await self.follow()

    async def follow(self) -> None:
        """Ask for the rows of all IngestJobs that run, and of those that ended untold.

        Those with news are reconciled, the longest unwritten first, as many as may be.
        """
        now = self._now()
        self._untold = {uid: (key, until) for uid, (key, until) in self._untold.items() if until > now}
        untold = {uid: key for uid, (key, _) in self._untold.items()}
        active = self._active | untold
        try:
            self._news.update(await self.rows.refresh(active))
        except OrchestratorError as error:
            log.warning("progress.unknown", rows=len(active), error=str(error))
        else:
            self._heard_of(untold)
        self._news &= active.keys()
        for uid in sorted(self._news, key=lambda uid: self._written.get(uid, 0.0))[: self._settings.progress_writes]:
            self._news.discard(uid)
            self.queue.add(active[uid])

    def _heard_of(self, untold: Iterable[str]) -> None:
        """Who has no row is never told; whose row has ended is told, until a reconciliation saw it; the others are asked about again."""
        for uid in untold:
            row = self.rows.known(uid)
            if row is None:
                self._untold.pop(uid, None)
            elif row.ended and uid in self._untold:
                self._news.add(uid)

    def _follows(self, uid: str, key: Key, *, runs: bool) -> None:
        if runs:
            self._active[uid] = key
        else:
            self._active.pop(uid, None)


def merge_patch(old: Obj, new: Obj) -> Obj:
    """The JSON merge patch that makes `new` of `old`."""
    patch: Obj = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[name] = inner
        elif value != before:
            patch[name] = value
    return patch
