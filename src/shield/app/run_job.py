"""`shield run-job`: one job, run to its end in this process, whose exit code says how it ended.

Made for the pod of an IngestJob. The job's row is accepted with the IngestJob's uid as idempotency key and as *runner*, so a pod
that is started again finds the same row and goes on where the last one stopped, and no worker of the fleet ever touches it. Retries
are the Kubernetes Job's: an error that a retry may mend puts the row back and exits with 75. A dependency that is away is waited for
here, which costs no retry. SIGTERM hands the row back and exits with 143.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from pydantic import Field, StringConstraints, ValidationError

from shield.auth import Principal, Scope
from shield.errors import Exit, LeaseLost, SpecInvalid, from_code
from shield.jobs.model import Job, JobId, Status
from shield.service.models import IngestRequest
from shield.service.models.base import Input, KbName
from shield.service.models.ingest import CrawlSpec, DocumentSpec
from shield.service.validation import invalid_request
from shield.settings import MiB, Settings

if TYPE_CHECKING:
    from shield.jobs.repository import JobRepository
    from shield.worker.loop import Worker

log = structlog.get_logger(__name__)

_MAX_FILE = 4 * MiB


class Order(Input):
    """The file's content: what `POST /lightrag/ingest-async` takes, and for whom."""

    uid: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    """Names the job for ever: the same uid is the same job."""
    principal: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")] = "local"
    """Whose job it is."""
    knowledge_base: KbName = "default"
    """Where to; it must exist."""
    spec: Annotated[CrawlSpec | DocumentSpec, Field(discriminator="type")]
    """What to ingest."""
    priority: Literal["high", "normal", "low"] = "normal"
    """Shown with the job; a pod waits in no queue."""

    @property
    def runner(self) -> str:
        """Who alone may run the job."""
        return f"ingestjob:{self.uid}"

    def request(self) -> IngestRequest:
        """The intake's form of it."""
        return IngestRequest(knowledge_base=self.knowledge_base, spec=self.spec, priority=self.priority)


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
        strict: a partial success is `Exit.PARTIAL`.

    Raises:
        ShieldError: the job was refused at intake.
    """
    async with AsyncExitStack() as stack:
        run = asyncio.create_task(_run(settings, order, stack, strict=strict))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            return Exit.DRAINED
        finally:
            stopped.cancel()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)


async def _run(settings: Settings, order: Order, stack: AsyncExitStack, *, strict: bool) -> Exit:
    from shield.app.assembly import Wake, answering, connect_core, working
    from shield.app.scratch import private_scratch
    from shield.service.local import LocalShield

    dsn, migrate = await _database(settings, stack)
    core = await connect_core(settings, dsn, stack, migrate=migrate)
    scratch = await asyncio.to_thread(private_scratch, settings.data_dir / "cache" / "convert")
    crew = working(core, stack, runner=order.runner, scratch=scratch)
    shield = LocalShield((await answering(core, stack, Wake(), offers=crew.offered)).parts)
    who = Principal(order.principal, frozenset({Scope.KB_WRITE, Scope.CRAWL, Scope.JOBS_READ}))
    accepted = await shield.ingest(who, order.request(), idempotency_key=order.uid, runner=order.runner)
    job_id = JobId(accepted.job_id)
    log.info("run_job.accepted", job_id=str(job_id), status=accepted.status)
    over = asyncio.Event()
    beside = [asyncio.create_task(crew.runner.run(over))]
    if crew.sender is not None:
        beside.append(asyncio.create_task(crew.sender.run(over)))
    try:
        return await _until_ended(crew.worker, core.jobs, job_id, order.runner, settings, strict=strict)
    finally:
        over.set()
        await asyncio.gather(*beside, return_exceptions=True)


async def _until_ended(worker: Worker, jobs: JobRepository, job_id: JobId, runner: str, settings: Settings, *, strict: bool) -> Exit:
    """Claim and run the job again and again: after graph steps, and after a dependency was away."""
    errors = (await jobs.get(None, job_id)).errors
    ran = False
    while True:
        await jobs.unpark(runner)
        job = await jobs.get(None, job_id)
        if job.status.ended:
            log.info("run_job.ended", job_id=str(job.id), status=str(job.status), outcome=job.outcome, error=job.error_code)
            return exit_of(job, strict=strict)
        if ran and job.errors > errors:
            log.warning("run_job.error", error=job.error_code, message=job.error_message)
            return Exit.TRANSIENT
        claim = await jobs.claim(job_id, worker.id, worker.offers, runner)
        if claim is None:
            await asyncio.sleep(_pause(job, settings))
            continue
        ran = True
        if await worker.run_one(claim) is None:
            return LeaseLost.exit_code


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


def _pause(job: Job, settings: Settings) -> float:
    """Until the job may be claimed: when it is due, or when the lease of a killed pod lapses; at least one look a second."""
    due = job.lease_until if job.status is Status.PROCESSING and not job.parked else job.available_at
    wait = (due - datetime.now(UTC)).total_seconds() if due else 0.0
    return min(1.0, max(settings.jobs.relay.total_seconds(), wait))


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
