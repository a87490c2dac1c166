"""When to ask for a job again: one source for `poll_after_seconds` and `Retry-After`."""

from __future__ import annotations

from datetime import datetime

from shield.jobs.model import Job
from shield.settings import JobSettings


def poll_after(job: Job, now: datetime, settings: JobSettings) -> float:
    """Seconds until a client should look at `job` again: short at first, longer for an old job, 0 once it has ended."""
    if job.status.ended:
        return 0.0
    old = now - job.created_at >= settings.poll_long_after
    return (settings.poll_after_long if old else settings.poll_after).total_seconds()
