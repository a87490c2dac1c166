"""What workers do: jobs, their slots, and the word they send when a job has ended."""

from __future__ import annotations

from datetime import timedelta

from pydantic import ByteSize, Field, SecretStr, field_validator

from shield.settings.base import Duration, GiB, Group, seconds


class JobSettings(Group):
    lease: Duration = seconds(30)
    """A worker that does not renew its lease for this long has lost its job."""
    heartbeat: Duration = seconds(10)
    """Pause between two renewals."""
    relay: Duration = seconds(0.5)
    """Pause between two looks for work."""
    refill: Duration = seconds(0.02)
    """Server mode: pause between two looks at the hints that are out, while more jobs wait."""
    max_errors: int = Field(3, ge=1)
    """Transient errors before a job is given up."""
    max_crashes: int = Field(3, ge=1)
    """Workers a job may take down before it is given up."""
    backoff_min: Duration = seconds(2)
    """First pause before a retry (full jitter)."""
    backoff_max: Duration = timedelta(minutes=5)
    """Longest pause before a retry."""
    deadline: Duration = timedelta(hours=24)
    """A job not ended by then fails and names what it waited for."""
    pod_deadline: Duration = timedelta(days=30)
    """The same for a job of a pod, whose owner has deadlines of its own and may suspend it for days."""
    outage: Duration = timedelta(minutes=10)
    """How long `run-job` waits for a database that went away, before it ends and its pod is tried again."""
    max_pending: int = 1000
    """Jobs waiting in all."""
    max_pending_principal: int = 100
    """Jobs waiting a principal."""
    max_running_principal: int = 4
    """Jobs running at once a principal."""
    max_bytes_day: ByteSize = ByteSize(1 * GiB)
    """Bytes a principal may send in 24 hours."""
    slots: int = Field(2, ge=1)
    """Jobs a worker runs at once."""
    poll_after: Duration = seconds(2)
    """Pause advised to a polling client at first."""
    poll_after_long: Duration = seconds(5)
    """Pause advised once a job is older than `poll_long_after`."""
    poll_long_after: Duration = seconds(30)
    """Age from which a job is polled less often."""
    progress: Duration = seconds(1)
    """Least pause between two writes of a running job's progress; a new stage is written at once."""
    idempotency_keep: Duration = timedelta(days=7)
    """How long after a job's end its Idempotency-Key still answers."""
    retention: Duration = timedelta(days=30)
    """How long ended jobs and their outcomes are kept."""
    drain: Duration = seconds(2)
    """How long a stopping worker waits for a safe point before it hands its job back."""


class WorkerSettings(Group):
    fetch: int = Field(4, ge=1, le=64)
    """Jobs of one process that fetch at once."""
    convert: int = Field(1, ge=1, le=16)
    """Documents of one process that are converted at once."""
    index: int = Field(2, ge=1, le=64)
    """Documents of one process that are embedded and indexed at once."""
    graph: int = Field(1, ge=1, le=8)
    """Knowledge bases whose graph one process writes at once; each takes a process of its own."""
    memory: ByteSize = ByteSize(2 * GiB)
    """Resident memory from which a worker's idle children are recycled and no job is begun until it has shrunk; 0 = no ceiling."""


class WebhookSettings(Group):
    secret: SecretStr | None = None
    """Signs completion webhooks: `whsec_` and base64, or at least 32 characters; without it none are accepted."""
    timeout: Duration = seconds(10)
    """Longest time for one delivery, name resolution included."""
    tries: int = Field(8, ge=1, le=20)
    """Deliveries that are tried before one is given up."""
    backoff_min: Duration = seconds(1)
    """First pause before another try; each further one is about four times as long."""
    backoff_max: Duration = timedelta(hours=1)
    """Longest pause before another try."""
    poll: Duration = seconds(1)
    """Pause between two looks for deliveries that are due."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value
