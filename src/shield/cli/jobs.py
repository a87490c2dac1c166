"""`shield jobs`: list, show, watch, cancel, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from shield.auth import LOCAL
from shield.cli.common import Json, console, print_json, with_shield
from shield.errors import Exit, RetriesExhausted, ShieldError

if TYPE_CHECKING:
    from shield.service.models import JobList, JobView
    from shield.service.port import Shield

JobArgument = Annotated[UUID, typer.Argument(help="The job's id.")]
_PAGE = 100


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Follow, cancel and retry jobs.")
    group.command("list")(list_jobs)
    group.command("show")(show)
    group.command("watch")(watch)
    group.command("cancel")(cancel)
    group.command("retry")(retry)
    app.add_typer(group, name="jobs")


def list_jobs(
    status: Annotated[str | None, typer.Option(help="pending, processing, completed, failed or cancelled.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only jobs that were given up after their last retry.")] = False,
    limit: Annotated[int, typer.Option(help="Most jobs.")] = 20,
    as_json: Json = False,
) -> int:
    """List jobs, newest first."""

    async def work(shield: Shield) -> JobList:
        if dead:
            return await shield.jobs(LOCAL, status="failed", code=RetriesExhausted.code, limit=limit)
        return await shield.jobs(LOCAL, status=status, limit=limit)

    result = with_shield(work)
    if as_json:
        print_json(result)
        return Exit.OK
    from rich.table import Table

    from shield.cli.progress import numbers

    table = Table("job", "kind", "knowledge base", "status", "progress", box=None)
    for job in result.jobs:
        table.add_row(str(job.job_id), job.kind, job.knowledge_base, job.status, numbers(job))
    console().print(table)
    return Exit.OK


def show(job_id: JobArgument, as_json: Json = False) -> int:
    """Show a job with the outcome of every page and document."""

    async def work(shield: Shield) -> JobView:
        job = await shield.job(LOCAL, job_id, outcomes_limit=100)
        while job.next_outcome is not None:
            more = await shield.job(LOCAL, job_id, outcomes_after=job.next_outcome, outcomes_limit=100)
            job = more.model_copy(update={"outcomes": [*job.outcomes, *more.outcomes]})
        return job

    job = with_shield(work)
    if as_json:
        print_json(job)
        return Exit.OK
    from shield.cli.progress import report

    report(job, console())
    for outcome in job.outcomes:
        console().print(f"  {outcome.status:<10} {outcome.source}  ({outcome.chunks} chunks)", markup=False)
    if job.proof:
        console().print(f"  proof: {job.proof}", markup=False)
    return Exit.OK


def watch(
    job_id: JobArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 20 if some documents failed.")] = False,
    as_json: Json = False,
) -> int:
    """Follow a job to its end."""
    from shield.cli.progress import exit_code, follow, report

    async def work(shield: Shield) -> JobView:
        return await follow(shield, await shield.job(LOCAL, job_id), console(stderr=True), label="Job")

    job = with_shield(work)
    print_json(job) if as_json else report(job, console())
    return exit_code(job, strict=strict)


def cancel(job_id: JobArgument, as_json: Json = False) -> int:
    """Cancel a job."""

    async def work(shield: Shield) -> JobView:
        return await shield.cancel(LOCAL, job_id)

    job = with_shield(work)
    print_json(job) if as_json else console().print(f"Job {job.job_id}: {job.status if job.finished_at else 'cancelling'}")
    return Exit.OK


def retry(
    job_id: Annotated[UUID | None, typer.Argument(help="The job's id.")] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Every job that was given up and not retried yet.")] = False,
    as_json: Json = False,
) -> int:
    """Retry an ended job; what it finished is kept."""
    if (job_id is None) != all_dead:
        raise typer.BadParameter("Name a job, or say --all-dead.")
    if job_id is None:
        return _retry_all_dead(as_json=as_json)
    wanted = job_id

    async def work(shield: Shield) -> JobView:
        return await shield.retry(LOCAL, wanted)

    job = with_shield(work)
    print_json(job) if as_json else console().print(f"Job {job.job_id} accepted. Follow it with: shield jobs watch {job.job_id}")
    return Exit.OK


def _retry_all_dead(*, as_json: bool) -> int:
    """One refusal (content that is gone, a full queue) does not keep the others from being tried."""

    async def work(shield: Shield) -> tuple[list[JobView], dict[UUID, ShieldError]]:
        retried: list[JobView] = []
        refused: dict[UUID, ShieldError] = {}
        for job in await dead_jobs(shield):
            try:
                retried.append(await shield.retry(LOCAL, job.job_id))
            except ShieldError as error:
                refused[job.job_id] = error
        return retried, refused

    retried, refused = with_shield(work)
    if as_json:
        print_json(
            {
                "retried": [job.model_dump(mode="json") for job in retried],
                "refused": [{"job_id": str(job_id), **error.public()} for job_id, error in refused.items()],
            }
        )
    else:
        for job in retried:
            console().print(f"Job {job.job_id} accepted; it retries {job.retry_of}")
        for job_id, error in refused.items():
            console().print(f"Job {job_id} cannot be retried: [{error.code}] {error.message}", markup=False)
        console().print(f"{len(retried)} jobs retried, {len(refused)} refused.")
    return Exit.REFUSED if refused else Exit.OK


async def dead_jobs(shield: Shield) -> list[JobView]:
    """Jobs that were given up and that no later job retries, newest first; a retry is always newer than what it retries."""
    dead: list[JobView] = []
    retried: set[UUID] = set()
    cursor: str | None = None
    while True:
        page = await shield.jobs(LOCAL, limit=_PAGE, cursor=cursor)
        for job in page.jobs:
            if job.retry_of is not None:
                retried.add(job.retry_of)
            if job.error is not None and job.error.code == RetriesExhausted.code and job.job_id not in retried:
                dead.append(job)
        if (cursor := page.next_cursor) is None:
            return dead
