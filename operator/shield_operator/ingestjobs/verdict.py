"""How an IngestJob ended: from the orchestrator's row where it is known, else from the Job and its last pod.

The row is the truth about the content: if it is `completed`, the knowledge is there, whatever became of the pod. A row that has not ended
says nothing; then the Job's own reason counts, and for a pod that ended with a published exit code (docs/EXIT_CODES.md) what that code means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shield_operator.api.ingestjob import Reason
from shield_operator.ingestjobs.view import Child, Pod
from shield_operator.orchestrator import Row

EXIT_REASONS = {
    2: "Usage",
    10: "BadSpec",
    11: "Auth",
    12: "Refused",
    13: "AllFailed",
    14: "Budget",
    20: Reason.PARTIALLY_COMPLETED,
}
"""Exit codes after which no other try is made, and the reasons that they become."""

_EXIT_CODE = re.compile(r"exit code (\d{1,3}) ")


@dataclass(frozen=True)
class End:
    """A terminal state."""

    complete: bool
    reason: str
    message: str
    refused: bool = False
    """It never began."""

    @staticmethod
    def failed(reason: str, message: str, *, refused: bool = False) -> End:
        """A failure."""
        return End(complete=False, reason=str(reason), message=message, refused=refused)


def reason_of(code: str) -> str:
    """A stable error code as a condition's reason: `robots.delay_too_long` is `RobotsDelayTooLong`; of a job's own codes without `job`."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", code.removeprefix("job.")) if word]
    reason = "".join(word[0].upper() + word[1:] for word in words)
    return reason if reason[:1].isalpha() else "Failed"


def judge(child: Child, row: Row | None, pod: Pod | None, *, strict: bool) -> End:
    """How it ended, once its Job has."""
    finish = child.finish
    if finish is None:
        raise ValueError("the Job has not finished")
    if row is not None and row.status in {"completed", "cancelled"}:
        return judge_row(row, strict=strict)
    if not finish.complete and finish.reason == "DeadlineExceeded":
        return End.failed(Reason.DEADLINE_EXCEEDED, finish.message or "It was active longer than activeDeadlineSeconds.")
    if row is not None and row.ended:
        return judge_row(row, strict=strict)
    if finish.complete:
        return End(complete=True, reason=Reason.COMPLETED, message="The Job completed.")
    if finish.reason == "BackoffLimitExceeded":
        return End.failed(Reason.RETRIES_EXHAUSTED, f"{child.failed} pods failed{_last(pod)}.")
    if pod is not None and pod.error_code:
        return End.failed(reason_of(pod.error_code), f"The job was refused or failed: {pod.error_code}{_last(pod)}.")
    code = pod.exit_code if pod is not None and pod.exit_code is not None else _told_code(finish.message)
    if code in EXIT_REASONS:
        return End.failed(EXIT_REASONS[code], f"The pod ended with exit code {code}.")
    return End.failed(reason_of(finish.reason or "Failed"), finish.message)


def judge_row(row: Row, *, strict: bool) -> End:
    """How it ended, by a row that has."""
    counts = f"{row.progress.documents} documents stored, {row.progress.failed} failed"
    if row.status == "completed":
        if row.outcome != "partial":
            return End(complete=True, reason=Reason.COMPLETED, message=f"{counts}.")
        if strict:
            return End.failed(Reason.PARTIALLY_COMPLETED, f"{counts}; the job is strict.")
        return End(complete=True, reason=Reason.PARTIALLY_COMPLETED, message=f"{counts}.")
    if row.status == "cancelled":
        return End.failed(Reason.CANCELLED, f"It was cancelled; {counts}.")
    code = row.error_code or "job.failed"
    return End.failed(reason_of(code), f"{code}; {counts}.")


def _last(pod: Pod | None) -> str:
    if pod is None or pod.exit_code is None:
        return ""
    return f"; the last one ended with exit code {pod.exit_code}{' (out of memory)' if pod.oom_killed else ''}"


def _told_code(message: str) -> int | None:
    match = _EXIT_CODE.search(message)
    return int(match[1]) if match else None
