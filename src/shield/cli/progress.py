"""Following a job: a bar with true numbers, and the exit code its end deserves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shield.auth import LOCAL, Principal
from shield.errors import Exit, from_code

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from shield.service.models import JobView
    from shield.service.port import Shield


async def follow(shield: Shield, job: JobView, console: Console, *, label: str) -> JobView:
    """Poll a job to its end, showing its numbers; returns its last view."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task(label, total=100, numbers="")
        return await watch(shield, job, bar, task)


async def watch(shield: Shield, job: JobView, bar: Progress, task: TaskID, *, who: Principal = LOCAL) -> JobView:
    """The same inside a bar that shows several jobs."""
    while True:
        bar.update(task, completed=job.progress.percentage, numbers=numbers(job))
        if job.finished_at is not None:
            return job
        began = time.monotonic()
        job = await shield.job(who, job.job_id, wait=1.0)
        if job.finished_at is None and time.monotonic() - began < 0.2:  # the server did not wait: do not spin
            import asyncio

            await asyncio.sleep(0.2)


def numbers(job: JobView) -> str:
    """One line of true numbers."""
    progress = job.progress
    parts = [job.status if job.finished_at else job.stage]
    if job.kind == "crawl":
        parts.append(f"{progress.pages_fetched}/{progress.pages_found} pages")
    parts += [f"{progress.documents} documents", f"{progress.chunks} chunks"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if job.waiting_for:
        parts.append(f"waits for {job.waiting_for}")
    return ", ".join(parts)


def exit_code(job: JobView, *, strict: bool) -> int:
    """0 for a job that stored something, unless `strict` minds a partial outcome; otherwise what the error says."""
    if job.status == "completed":
        return Exit.PARTIAL if strict and job.outcome == "partial" else Exit.OK
    if job.error is not None:
        return from_code(job.error.code).exit_code
    return Exit.REFUSED


def report(job: JobView, console: Console) -> None:
    """Say how a job ended, and why what failed failed."""
    failed = [outcome for outcome in job.outcomes if outcome.status == "failed"]
    console.print(f"Job {job.job_id} {job.status}{' (partial)' if job.outcome == 'partial' else ''}: {numbers(job)}")
    for outcome in failed[:10]:
        console.print(f"  failed  {outcome.source}  [{outcome.code}] {outcome.message}", markup=False)
    if len(failed) > 10:
        console.print(f"  ... and {len(failed) - 10} more: shield jobs show {job.job_id}")
    if job.error is not None:
        console.print(f"  [{job.error.code}] {job.error.message} {job.error.advice}", markup=False)
