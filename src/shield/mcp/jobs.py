"""Tools about jobs: how far, stop, which."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shield.mcp.parameters import Cursor, JobIdText, Limit
from shield.mcp.toolbox import Toolbox
from shield.service.models import JobList, JobView, KbName

Wait = Annotated[float, Field(ge=0, le=45, description="Answer when the job ends, but after this many seconds at the latest.")]
OutcomesAfter = Annotated[int, Field(ge=0, description="next_outcome of the answer before, to read further outcomes.")]
JobStatus = Annotated[
    Literal["pending", "processing", "completed", "failed", "cancelled"] | None, Field(description="Only jobs that stand here.")
]
OnlyBase = Annotated[KbName | None, Field(description="Only jobs of this knowledge base.")]

_SHARE_OF_LIMIT = 0.9
"""How much of the tool's time limit a waiting poll may use: it must answer, not be cut off."""


def register(box: Toolbox) -> None:
    """Declare get_job_status, cancel_job and list_jobs."""

    @box.tool(read_only=True)
    async def get_job_status(job_id: JobIdText, wait_seconds: Wait = 0, outcomes_after: OutcomesAfter = 0) -> JobView:
        """Tell how far a job is: status, progress, and what became of each page or document.

        Use it after crawl_web, ingest_doc or delete_document. Set `wait_seconds` (up to 45) to wait for the end instead of polling
        quickly; without it, poll no faster than `poll_after_seconds`. The job has ended when `status` is completed, failed or
        cancelled; `outcome: partial` means that some documents failed. Each failure in `outcomes` says why, and what to do.
        """
        wait = min(wait_seconds, box.limit * _SHARE_OF_LIMIT)
        return await box.shield.job(box.principal(), job_id, wait=wait, outcomes_after=outcomes_after)

    @box.tool()
    async def cancel_job(job_id: JobIdText) -> JobView:
        """Stop a job that has not ended. What it has stored so far stays; it stops within seconds (see get_job_status)."""
        return await box.shield.cancel(box.principal(), job_id)

    @box.tool(read_only=True)
    async def list_jobs(status: JobStatus = None, knowledge_base: OnlyBase = None, limit: Limit = 20, cursor: Cursor = None) -> JobList:
        """List your jobs, newest first. Use it to find a job whose id was lost, or to see what is running."""
        return await box.shield.jobs(box.principal(), status=status, knowledge_base=knowledge_base, limit=limit, cursor=cursor)
