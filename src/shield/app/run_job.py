"""`shield run-job`: one job, run to its end in this process, whose exit code says how it ended.

Made for the pod of an IngestJob. The job's row is accepted with the IngestJob's uid as idempotency key and as *runner*, so a pod
that is started again finds the same row and goes on where the last one stopped, and no worker of the fleet ever touches it. Retries
are the Kubernetes Job's: an error that a retry may mend puts the row back and exits with 75. A dependency that is away is waited for
here, which costs no retry. SIGTERM hands the row back and exits with 143. A second process with the same uid waits while the first one lives,
and for the rest of its lease when it was killed.

Metrics, liveness and readiness are served as by the processes of a fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from pydantic import Field, StrictBool, StringConstraints, ValidationError

from shield.auth import Principal, Scope
from shield.errors import DatabaseUnavailable, Exit, KnowledgeBaseExists, LeaseLost, SpecInvalid, from_code
from shield.jobs.model import Job, JobId, Status
from shield.jobs.pods import runner_of
from shield.service.models import Budget, CrawlSpec, DocumentSpec, DocumentsSpec, IngestRequest
from shield.service.models.base import Input, KbName
from shield.service.models.operator import Uid, namespace_principal
from shield.service.validation import invalid_request
from shield.settings import JobSettings, MiB, Settings

if TYPE_CHECKING:
    from shield.jobs.repository import JobRepository
    from shield.knowledge.bases import Bases
    from shield.worker.loop import Worker

log = structlog.get_logger(__name__)

_MAX_FILE = 4 * MiB


class Order(Input):
    """The file's content: what `POST /lightrag/ingest-async` takes, and for whom."""

    uid: Uid
    """Names the job for ever: the same uid is the same job."""
    principal: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")] = "local"
    """Whose job it is."""
    knowledge_base: KbName = "default"
    """Where to; it must exist."""
    spec: Annotated[CrawlSpec | DocumentSpec | DocumentsSpec, Field(discriminator="type")]
    """What to ingest. Files below the document root are named by `documents`."""
    priority: Literal["high", "normal", "low"] = "normal"
    """Shown with the job; a pod waits in no queue."""
    budget: Budget | None = None
    """What the job may cost; none: no limit."""
    strict: StrictBool = False
    """A partial success ends with exit code 20."""

    @property
    def runner(self) -> str:
        """Who alone may run the job."""
        return runner_of(self.uid)

    @property
    def of_namespace(self) -> bool:
        """Whether it is a namespace's, which sees its own knowledge bases and no others."""
        return self.principal.startswith(namespace_principal(""))

    def who(self) -> Principal:
        """For whom the job is accepted."""
        return Principal(
            self.principal, frozenset({Scope.KB_WRITE, Scope.CRAWL, Scope.JOBS_READ}), frozenset() if self.of_namespace else None
        )

    def request(self) -> IngestRequest:
        """The intake's form of it."""
        return IngestRequest(knowledge_base=self.knowledge_base, spec=self.spec, priority=self.priority, budget=self.budget)


def read_order(path: Path) -> Order:
    """Read the file.

    Raises:
        SpecInvalid: it is missing, too large, no JSON, or says something else than an order.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise SpecInvalid(f"The file cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_FILE:
        raise SpecInvalid("The file is larger than 4 MiB.")
    try:
        return Order.model_validate_json(content)
    except ValidationError as error:
        raise SpecInvalid(invalid_request(error).message) from error


async def run_job(settings: Settings, order: Order, stop: asyncio.Event, *, strict: bool = False) -> Exit:
    """Run the job until it has ended, `stop` is set, or another process takes it over.

    Args:
        settings: server mode, or embedded on a data directory of this process alone.
        order: the job.
        stop: set it to hand the job back.
        strict: a partial success is `Exit.PARTIAL`, also if the order does not say so.

    Raises:
        ShieldError: the job was refused at intake, or the database was away for too long.
    """
    async with AsyncExitStack() as stack:
        pod = _Pod(settings, order, stack)
        run = asyncio.create_task(pod.run())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():
                pod.waits_for = ("stop",)
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
                return Exit.DRAINED
            end = run.result()
            return end if isinstance(end, Exit) else exit_of(end, strict=strict or order.strict)
        finally:
            stopped.cancel()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)


class _Pod:
    """The process around one job; what has to be closed is pushed on `stack`."""

    def __init__(self, settings: Settings, order: Order, stack: AsyncExitStack) -> None:
        self._settings = settings
        self._order = order
        self._stack = stack
        self.waits_for: Sequence[str] = ("start",)

    async def run(self) -> Job | Exit:
        """The job when it has ended, or how the process ends before that."""
        from shield.app.assembly import Wake, answering, connect_core, working
        from shield.app.process import expose
        from shield.app.scratch import private_scratch
        from shield.service.local import LocalShield
        from shield.telemetry.metrics import Metrics
        from shield.telemetry.series import Role

        settings, order, stack = self._settings, self._order, self._stack
        metrics = Metrics(role=Role.WORKER)
        log.info("run_job.begun", uid=order.uid, metrics=expose(settings, metrics, stack, lambda: self.waits_for))
        dsn, own = await _database(settings, stack)
        core = await connect_core(settings, dsn, stack, migrate=own, metrics=metrics)
        scratch = await asyncio.to_thread(private_scratch, settings.data_dir / "cache" / "convert")
        crew = working(core, stack, runner=order.runner, scratch=scratch)
        job_id = await self._known(core.jobs)
        if job_id is None:
            if own and order.of_namespace:
                await _ensure_base(core.bases, order)
            shield = LocalShield((await answering(core, stack, Wake(), offers=crew.offered)).parts)
            accepted = await shield.ingest(order.who(), order.request(), idempotency_key=order.uid, runner=order.runner)
            job_id = JobId(accepted.job_id)
            log.info("run_job.accepted", job_id=str(job_id))
        self.waits_for = ()
        over = asyncio.Event()
        beside = [asyncio.create_task(crew.runner.run(over))]
        if crew.sender is not None:
            beside.append(asyncio.create_task(crew.sender.run(over)))
        try:
            return await _Turns(core.jobs, crew.worker, job_id, order.runner, settings.jobs).until_ended()
        finally:
            over.set()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _known(self, jobs: JobRepository) -> JobId | None:
        """The row that an earlier pod accepted: it stands, whatever has become of an upload or an address since."""
        job = await jobs.of_pod(self._order.principal, self._order.uid)
        if job is None:
            return None
        log.info("run_job.found", job_id=str(job.id), status=str(job.status), crashes=job.crashes, errors=job.errors)
        return job.id


class _Turns:
    """Claims and runs the job again and again: after graph steps, and after a dependency was away."""

    def __init__(self, jobs: JobRepository, worker: Worker, job_id: JobId, runner: str, settings: JobSettings) -> None:
        self._jobs = jobs
        self._worker = worker
        self._job_id = job_id
        self._runner = runner
        self._settings = settings
        self._errors: int | None = None
        """How many errors the job had before the first turn."""
        self._ran = False

    async def until_ended(self) -> Job | Exit:
        """The job when it has ended, or how the process ends before that.

        Raises:
            DatabaseUnavailable: the database was away for longer than `jobs.outage`.
        """
        clock, away = asyncio.get_running_loop().time, None
        while True:
            try:
                end = await self._turn()
            except DatabaseUnavailable:
                if away is None:
                    away = clock()
                    log.warning("run_job.database_away")
                if clock() - away > self._settings.outage.total_seconds():
                    raise
                await asyncio.sleep(self._settings.relay.total_seconds())
                continue
            away = None
            if end is not None:
                return end

    async def _turn(self) -> Job | Exit | None:
        """One look at the job, and a run of it if it may be claimed; None: look again."""
        await self._jobs.unpark(self._runner)
        job = await self._jobs.get(None, self._job_id)
        self._errors = job.errors if self._errors is None else self._errors
        if job.status.ended:
            log.info("run_job.ended", job_id=str(job.id), status=str(job.status), outcome=job.outcome, error=job.error_code)
            return job
        if self._ran and job.errors > self._errors:
            log.warning("run_job.error", error=job.error_code, message=job.error_message)
            return Exit.TRANSIENT
        claim = await self._jobs.claim(self._job_id, self._worker.id, self._worker.offers, self._runner)
        if claim is None:
            await asyncio.sleep(_pause(job, self._settings))
            return None
        self._ran = True
        return LeaseLost.exit_code if await self._worker.run_one(claim) is None else None


async def _ensure_base(bases: Bases, order: Order) -> None:
    """Make the namespace's base: this data directory is the job's own, and nobody else will."""
    with contextlib.suppress(KnowledgeBaseExists):
        await bases.create(order.knowledge_base, owner=order.principal)


async def _database(settings: Settings, stack: AsyncExitStack) -> tuple[str, bool]:
    """The database's address, and whether this process migrates it: in embedded mode it is ours alone."""
    from shield.app.fleet import server_dsn

    if settings.mode == "server":
        return server_dsn(settings), False
    from shield.app.owner import Ownership
    from shield.database.embedded import EmbeddedPostgres, prepare
    from shield.errors import DataDirectoryBusy

    await asyncio.to_thread(prepare, settings.data_dir)
    ownership = Ownership.acquire(settings.data_dir)
    if ownership is None:
        raise DataDirectoryBusy
    stack.callback(ownership.close)
    postgres = EmbeddedPostgres(settings.data_dir)
    stack.push_async_callback(asyncio.to_thread, postgres.stop)
    await asyncio.to_thread(postgres.start)
    return postgres.dsn, True


def _pause(job: Job, settings: JobSettings) -> float:
    """Until the job may be claimed: when it is due, or when the lease of a killed pod lapses; at least one look a second."""
    due = job.lease_until if job.status is Status.PROCESSING and not job.parked else job.available_at
    wait = (due - datetime.now(UTC)).total_seconds() if due else 0.0
    return min(1.0, max(settings.relay.total_seconds(), wait))


def exit_of(job: Job, *, strict: bool) -> Exit:
    """The exit code that an ended job means."""
    match job.status:
        case Status.COMPLETED:
            return Exit.PARTIAL if strict and job.outcome == "partial" else Exit.OK
        case Status.CANCELLED:
            return Exit.REFUSED  # somebody wanted it to end: no retry
        case _:
            code = from_code(job.error_code or "").exit_code
            return Exit.ALL_FAILED if code in {Exit.REFUSED, Exit.USAGE} else code  # the only document's own fault
