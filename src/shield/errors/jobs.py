"""Jobs: what is asked of them, and how they end."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


class UnknownJob(ShieldError):
    """There is no such job, or it is not yours to see."""

    code, status = "job.not_found", 404
    advice = "Check the job id; ended jobs are kept for 30 days. list_jobs shows yours."


class JobNotRetryable(ShieldError):
    """Only a failed, partial or cancelled job can be retried."""

    code, status = "job.not_retryable", 409
    advice = "Wait until the job has ended, or submit a new one."


class JobEnded(ShieldError):
    """The job has ended already."""

    code, status = "job.ended", 409
    advice = "Read its outcome with get_job_status; an ended job does not change."


class JobCancelled(ShieldError):
    """The job was cancelled."""

    code, status = "job.cancelled", 409
    advice = "Retry it with POST /jobs/{id}/retry; what it finished is kept."


class DeadlineExceeded(ShieldError):
    """The job passed its deadline before it could end."""

    code, status, retryable, fault = "job.deadline_exceeded", 504, True, Fault.DEPENDENCY
    exit_code = Exit.ALL_FAILED
    advice = "The message names what it waited for; mend that, then retry the job."


class RetriesExhausted(ShieldError):
    """The job failed or killed its worker too often and was given up."""

    code, status, retryable, fault = "job.retries_exhausted", 500, True, Fault.SERVER
    exit_code = Exit.ALL_FAILED
    advice = "Read the job's last error; once its cause is gone, retry the job: it starts from what was finished."


class BudgetExceeded(ShieldError):
    """The job's next call to a language model could cost more tokens than its budget has left."""

    code, status, exit_code = "job.budget_exceeded", 422, Exit.BUDGET
    advice = "What is stored stays and is searchable; send it again with a larger budget to finish the graph: what was paid for is kept."


class NothingIngested(ShieldError):
    """No document of this job could be stored."""

    code, status, exit_code = "job.nothing_ingested", 422, Exit.ALL_FAILED
    advice = "Read the outcomes: each page or document names its own reason."


class WebhooksOff(ShieldError):
    """This server sends no webhooks."""

    code, status = "job.webhooks_off", 409
    advice = "Leave `webhook` out and poll the job, or have the operator set SHIELD_WEBHOOK_SECRET."


class SpecInvalid(ShieldError):
    """The file that specifies the job cannot be read."""

    code, status, exit_code = "job.spec_invalid", 422, Exit.BAD_SPEC
    advice = "Correct the file; `shield run-job --help` and docs/RUN_JOB.md show its form."


class LeaseLost(ShieldError):
    """Another worker took over this job."""

    code, status, retryable, fault, exit_code = "job.lease_lost", 409, True, Fault.SERVER, Exit.LEASE_LOST
    advice = "Nothing to do: the other worker finishes the job."
