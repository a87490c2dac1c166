"""What an error means for a graph step: it waits at no cost, is tried again, or is given up.

An open circuit, a throttled, misconfigured or absent dependency: the step is put off and keeps its tries, since nothing is wrong with
it, for as long as a job may take. What no retry mends (a refused text, a spent budget) ends it at once. Everything else, late
answers included, costs a try, and the last one ends the step with its code; its document stays searchable without a graph.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Literal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.errors import (
    CircuitOpen,
    DatabaseUnavailable,
    DependencyMisconfigured,
    DependencyThrottled,
    DependencyUnavailable,
    GraphFailed,
    RetriesExhausted,
    ShieldError,
)
from shield.knowledge.graph import tasks
from shield.knowledge.graph.model import GraphTask
from shield.knowledge.graph.wire import PeerFailed, PeerGone
from shield.settings import JobSettings

log = structlog.get_logger(__name__)

Verdict = Literal["failed", "postponed"]

_WAITS = CircuitOpen | DatabaseUnavailable | DependencyMisconfigured | DependencyThrottled


async def settle(connection: AsyncConnection, task: GraphTask, error: ShieldError, tries: int, settings: JobSettings) -> Verdict:
    """Put a step off, or give it up, for what went wrong; `tries` counts this one."""
    log.info("graph.step_error", code=error.code, task_id=task.id, tries=tries)
    waits = isinstance(error, _WAITS) or _outage(error)
    given_up = await tasks.overdue(connection, task.id, settings.deadline) if waits else tries >= settings.max_errors
    if given_up or not error.retryable or isinstance(error, RetriesExhausted):
        await tasks.end(connection, task, "failed", error.code, error.message)
        return "failed"
    ceiling = min(settings.backoff_max, settings.backoff_min * 2 ** min(tries, 16))
    delay = timedelta(seconds=random.uniform(0, ceiling.total_seconds()))  # noqa: S311  jitter
    if error.retry_after is not None:
        delay = max(delay, min(timedelta(seconds=error.retry_after), settings.backoff_max))
    elif waits:
        delay = max(delay, settings.backoff_min)
    await tasks.postpone(connection, task.id, delay, spend=not waits, code=error.code, message=error.message)
    return "postponed"


def typed(error: PeerGone | PeerFailed | ShieldError) -> ShieldError:
    """The error as the job's outcome will show it."""
    if isinstance(error, ShieldError):
        return error
    if isinstance(error, PeerFailed) and (known := error.typed()) is not None:
        return known
    what = "ended without an answer" if isinstance(error, PeerGone) else f"failed ({error.kind})"
    return GraphFailed(f"The graph's process {what}.")


def _outage(error: ShieldError) -> bool:
    """A service does not answer, which is nobody's text's fault; an answer that is only late may be, so that costs a try."""
    return isinstance(error, DependencyUnavailable) and "service" in error.details and not error.details.get("late")
