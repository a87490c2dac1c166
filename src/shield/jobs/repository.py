"""Where jobs live: PostgreSQL, and nothing else is true about them.

Every method is one transaction; when it returns, what it says is durable. A lost, refused or exhausted connection, and a
server that has not answered for a lease, is `DatabaseUnavailable`, and then the transaction may or may not have happened: intake is made safe to repeat by its
idempotency key, a worker's writes by their fence.

Writes of a worker take its `Claim` and raise `LeaseLost` without changing anything when its fence is outdated; only
`heartbeat` answers instead of raising. The SQL is in `intake` (accept, retry), `claims` (claim to end) and `sweeps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.database.engine import database_errors
from shield.database.fence import require_fence
from shield.errors import DatabaseUnavailable, JobCancelled, JobEnded, ShieldError, UnknownJob
from shield.jobs import choice, claims, intake, pods, stats, sweeps
from shield.jobs.choice import Chosen, Out
from shield.jobs.model import (
    FLEET,
    Beat,
    Claim,
    DocumentOutcome,
    Job,
    JobId,
    JobKind,
    JobRequest,
    Page,
    Progress,
    QueueStats,
    Stage,
    Status,
    Swept,
    WorkerId,
)
from shield.jobs.rows import COLUMNS, OUTCOME_COLUMNS, job_of, outcome_of
from shield.settings import JobSettings

NO_NEEDS: frozenset[str] = frozenset()

_PATIENCE = 10.0
"""Least limit of a transaction, in seconds: a burst of callers waits for connections and for each other's locks."""

_GET = text(f"SELECT {COLUMNS} FROM jobs WHERE id = :id AND principal = coalesce(CAST(:principal AS text), principal)")  # noqa: S608 - ours
_LIST = text(f"""
    SELECT {COLUMNS} FROM jobs
     WHERE principal = :principal AND (CAST(:status AS text) IS NULL OR status = :status)
       AND (CAST(:code AS text) IS NULL OR error_code = :code)
       AND (CAST(:kb AS text) IS NULL OR knowledge_base = :kb) AND (CAST(:before AS bigint) IS NULL OR seq < :before)
     ORDER BY seq DESC LIMIT :limit""")  # noqa: S608
_OUTCOMES = text(f"SELECT {OUTCOME_COLUMNS} FROM job_outcomes WHERE job_id = :id AND number > :after ORDER BY number LIMIT :limit")  # noqa: S608
_OUTCOME_COUNT = text("SELECT count(*) FROM job_outcomes WHERE job_id = :id")
_TO_CANCEL = text(f"""
    SELECT {COLUMNS}, status = 'processing' AND NOT parked AND lease_until >= now() AS held FROM jobs
     WHERE id = :id AND principal = :principal FOR NO KEY UPDATE""")  # noqa: S608
_ASK_CANCEL = text(f"""
    UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()), updated_at = now() WHERE id = :id RETURNING {COLUMNS}""")  # noqa: S608


class JobRepository:
    """Jobs in PostgreSQL."""

    def __init__(self, engine: AsyncEngine, settings: JobSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._limit = max(settings.lease.total_seconds(), _PATIENCE)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            with database_errors():
                async with asyncio.timeout(self._limit), self._engine.begin() as connection:
                    yield connection
        except TimeoutError as error:
            raise DatabaseUnavailable(retry_after=2) from error

    # -- for clients --------------------------------------------------------------------------------------------------

    async def accept(self, request: JobRequest) -> Job:
        """Store a new job, or return the one this request means already.

        That is the job of the same idempotency key, or, without a key, an identical live job of the same principal.

        Raises:
            IdempotencyMismatch: the key was used with another request.
            QueueFull, TooManyPending, BytesQuotaExceeded: a limit is reached; nothing was stored.
            UnknownUpload, UploadIncomplete: the upload cannot be used.
        """
        async with self._transaction() as connection:
            return await intake.accept(connection, request, self._settings)

    async def retry(self, principal: str, job_id: JobId) -> Job:
        """A new job that starts from what the ended one finished; see `intake.retry` for its errors."""
        async with self._transaction() as connection:
            return await intake.retry(connection, principal, job_id, self._settings)

    async def get(self, principal: str | None, job_id: JobId) -> Job:
        """A job of this principal; None stands for the system itself, which sees all.

        Raises:
            UnknownJob: there is none, or it is someone else's.
        """
        async with self._transaction() as connection:
            row = (await connection.execute(_GET, {"id": job_id, "principal": principal})).mappings().first()
        if row is None:
            raise UnknownJob
        return job_of(row)

    async def list(
        self,
        principal: str,
        *,
        status: Status | None = None,
        code: str | None = None,
        knowledge_base: str | None = None,
        limit: int = 20,
        before: int | None = None,
    ) -> Page:
        """This principal's jobs, newest first, those older than `before` (a `Page.next`); `code` is that of their error."""
        values = {"principal": principal, "status": status, "code": code, "kb": knowledge_base, "before": before, "limit": limit + 1}
        async with self._transaction() as connection:
            jobs = [job_of(row) for row in (await connection.execute(_LIST, values)).mappings()]
        return Page(jobs[:limit], jobs[limit - 1].seq if len(jobs) > limit else None)

    async def outcomes(self, job_id: JobId, *, after: int = 0, limit: int = 20) -> Sequence[DocumentOutcome]:
        """The job's outcomes numbered above `after`, in order."""
        async with self._transaction() as connection:
            rows = await connection.execute(_OUTCOMES, {"id": job_id, "after": after, "limit": limit})
            return [outcome_of(row) for row in rows.mappings()]

    async def outcome_count(self, job_id: JobId) -> int:
        """How many outcomes the job has."""
        async with self._transaction() as connection:
            return int((await connection.execute(_OUTCOME_COUNT, {"id": job_id})).scalar_one())

    async def request_cancel(self, principal: str, job_id: JobId) -> Job:
        """Cancel a job that nobody runs at once; ask the worker of a running one to stop within a heartbeat.

        Raises:
            UnknownJob: there is none, or it is someone else's.
            JobEnded: it has completed or failed (cancelling a cancelled one again is fine).
        """
        async with self._transaction() as connection:
            row = (await connection.execute(_TO_CANCEL, {"id": job_id, "principal": principal})).mappings().first()
            if row is None:
                raise UnknownJob
            job = job_of(row)
            if job.status is Status.CANCELLED:
                return job
            if job.status.ended:
                raise JobEnded
            asked = job_of((await connection.execute(_ASK_CANCEL, {"id": job_id})).mappings().one())
            return asked if row["held"] else await claims.end(connection, job_id, Status.CANCELLED, error=JobCancelled())

    # -- for the operator, and the pods of its IngestJobs ---------------------------------------------------------------

    async def pod_rows(self, uids: Sequence[str]) -> Sequence[pods.PodRow]:
        """The rows of these IngestJobs; those without one are left out."""
        async with self._transaction() as connection:
            return await pods.rows(connection, uids)

    async def of_pod(self, principal: str, uid: str) -> Job | None:
        """The row that an earlier pod of this IngestJob accepted, if there is one."""
        async with self._transaction() as connection:
            return await pods.of(connection, principal, uid)

    async def active_pods(self, after: str = "", limit: int = 1000, principals: Sequence[str] | None = None) -> Sequence[str]:
        """The uids of IngestJobs whose rows have not ended, in order, those after `after`; of these principals, or of all."""
        async with self._transaction() as connection:
            return await pods.active(connection, after, limit, principals)

    async def cancel_pods(self, uids: Sequence[str]) -> int:
        """Cancel the rows of these IngestJobs that have not ended; how many those were."""
        async with self._transaction() as connection:
            return await pods.cancel(connection, uids)

    # -- for workers --------------------------------------------------------------------------------------------------

    async def claim(self, job_id: JobId, worker: WorkerId, offers: frozenset[str] = NO_NEEDS, runner: str = FLEET) -> Claim | None:
        """Take this job, or None if it is held, ended, not yet due, out of budget, or not for this worker."""
        async with self._transaction() as connection:
            return await claims.claim(connection, job_id, worker=worker, offers=offers, runner=runner, settings=self._settings)

    async def claim_hinted(
        self,
        job_id: JobId,
        worker: WorkerId,
        offers: frozenset[str] = NO_NEEDS,
        runner: str = FLEET,
        *,
        kinds: Iterable[JobKind] = tuple(JobKind),
    ) -> Claim | None:
        """Take the job of a hint; if it is not to be had here but still waits, the relay will publish another hint."""
        async with self._transaction() as connection:
            taken = await claims.claim(
                connection, job_id, worker=worker, offers=offers, runner=runner, settings=self._settings, kinds=kinds
            )
            if taken is None:
                await claims.offer_again(connection, job_id, self._settings)
            return taken

    async def claim_next(
        self,
        worker: WorkerId,
        offers: frozenset[str] = NO_NEEDS,
        runner: str = FLEET,
        *,
        kinds: Iterable[JobKind] = tuple(JobKind),
        exclude: Collection[JobId] = (),
    ) -> Claim | None:
        """Take the job whose turn it is, or None.

        Principals take turns, a principal's jobs go by priority and age; one of ten starts goes to a job that waits behind
        a higher priority. `exclude` names jobs this worker has not let go of yet.
        """
        async with self._transaction() as connection:
            return await claims.claim_next(
                connection, worker=worker, offers=offers, runner=runner, settings=self._settings, kinds=kinds, exclude=exclude
            )

    async def heartbeat(self, claim: Claim) -> Beat:
        """Renew the lease and learn whether to stop; never raises `LeaseLost`."""
        async with self._transaction() as connection:
            return await claims.heartbeat(connection, claim, self._settings)

    async def save_progress(self, claim: Claim, progress: Progress, stage: Stage) -> None:
        """Write where the job stands."""
        async with self._transaction() as connection:
            await claims.save_progress(connection, claim, progress, stage)

    async def record_outcome(self, claim: Claim, outcome: DocumentOutcome) -> None:
        """Write what became of one page or document (by its number; again replaces)."""
        async with self._transaction() as connection:
            await claims.record_outcome(connection, claim, outcome)

    async def finish(self, claim: Claim, status: Status, *, outcome: str | None = None, error: ShieldError | None = None) -> Job:
        """Write the end state; erases what people sent for the job."""
        async with self._transaction() as connection:
            return await claims.finish(connection, claim, status, outcome=outcome, error=error)

    async def cancelled(self, claim: Claim) -> Job:
        """End the job as its owner asked."""
        return await self.finish(claim, Status.CANCELLED, error=JobCancelled())

    async def fail_transient(self, claim: Claim, error: ShieldError) -> Job:
        """Spend one error: pending again after a pause, or failed with `job.retries_exhausted` when it was the last."""
        async with self._transaction() as connection:
            return await claims.fail_transient(connection, claim, error, self._settings)

    async def hand_back(self, claim: Claim, waiting_for: str | None = None, after: timedelta = timedelta(0)) -> Job:
        """Put the job back, nothing spent: a worker stops, or a dependency named `waiting_for` is not to be had."""
        async with self._transaction() as connection:
            return await claims.hand_back(connection, claim, waiting_for, after)

    async def park(self, claim: Claim, stage: Stage = Stage.GRAPH) -> Job:
        """Let the job wait for its rows in `graph_tasks` without a slot; a sweep puts it back when none is pending."""
        async with self._transaction() as connection:
            return await claims.park(connection, claim, stage)

    # -- for the relay ------------------------------------------------------------------------------------------------

    async def choose(self, out: Out, runner: str = FLEET, *, regular: bool, published_before: int) -> Chosen | None:
        """Stamp the jobs whose hints go out next; None if another process is choosing. See `choice.choose`."""
        async with self._transaction() as connection:
            return await choice.choose(
                connection, out, runner=runner, settings=self._settings, regular=regular, published_before=published_before
            )

    # -- for the housekeeping -----------------------------------------------------------------------------------------

    async def sweep(self, runner: str = FLEET) -> Swept | None:
        """End what is late, worn out or cancelled, put parked jobs back, remove what is past its retention.

        None if another process is at it.
        """
        async with self._transaction() as connection:
            return await sweeps.sweep(connection, runner, self._settings)

    async def unpark(self, runner: str = FLEET) -> int:
        """The part of a sweep that makes parked jobs go on; cheap enough for every look for work."""
        async with self._transaction() as connection:
            return await sweeps.unpark(connection, runner)

    async def abandon_leases(self, runner: str = FLEET) -> int:
        """Let all leases lapse now, so that the jobs of a killed process go on at once (each counts as a crash).

        Only for one who knows that no worker lives: the owner of a data directory, before it starts its own.
        """
        async with self._transaction() as connection:
            return await sweeps.abandon_leases(connection, runner)

    async def stats(self, runner: str = FLEET) -> QueueStats:
        """The queue in numbers."""
        async with self._transaction() as connection:
            return await stats.stats(connection, runner, self._settings)


async def fenced(connection: AsyncConnection, claim: Claim) -> None:
    """Check the claim inside the caller's transaction and hold the job until it ends; see `database.fence`."""
    await require_fence(connection, claim.job.id, claim.fence)
