"""Every knob of the operator: `SHIELD_OPERATOR_` and the field's name in capitals. Durations are in seconds."""

from __future__ import annotations

import socket
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import uuid4

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shield_operator.quantity import parse_quantity

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ConfigurationError(Exception):
    """The operator cannot run as it is set up; the message says what to change."""


class Settings(BaseSettings):
    """The operator's settings."""

    model_config = SettingsConfigDict(env_prefix="SHIELD_OPERATOR_", extra="ignore", frozen=True, use_attribute_docstrings=True)

    worker_image: str = ""
    """Image of the pods that ingest; it must run `shield run-job`. Required."""
    pod_template_file: Path | None = None
    """YAML file with the pod template that every pod begins with: environment, Secrets, volumes, image pull secrets, default resources."""
    orchestrator_url: str = ""
    """The orchestrator, such as http://shield-api:8001; without it there is no progress and nothing is cancelled in it."""
    api_key_file: Path | None = None
    """File with the API key for the orchestrator; it needs the scope admin. Read anew for each call. None: calls carry no credential."""
    orchestrator_timeout: Seconds = 5
    """Longest wait for an answer of the orchestrator."""

    kubeconfig: str = ""
    """A kubeconfig file; empty: the pod's ServiceAccount, or else the usual kubeconfig."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve, as a JSON list; empty: all."""
    connections: Annotated[int, Field(ge=1)] = 64
    """Most requests to the API server in flight."""
    request_timeout: Seconds = 4
    """Longest wait for an answer of the API server; with renew_deadline at most lease_duration, so that a late write cannot meet the next leader's."""
    list_timeout: Seconds = 30
    """Longest wait for one page of a list."""
    page: Annotated[int, Field(ge=1)] = 500
    """Objects a page of a list."""

    identity: str = Field(default_factory=lambda: f"{socket.gethostname()}_{uuid4().hex[:8]}")
    """What this process is called in the Lease; it must be unique. Default: the host's name (in a pod the pod's) and chance."""
    lease_name: str = "shield-operator"
    """The Lease that decides who leads."""
    lease_namespace: str = ""
    """Where the Lease lives; empty: the operator's own namespace."""
    lease_duration: Seconds = 15
    """How long a leader that fell silent keeps the others waiting."""
    renew_deadline: Seconds = 10
    """A leader that could not renew its Lease for that long stops."""
    retry_period: Seconds = 2
    """Pause between renewals, and between tries to become the leader."""

    workers: Annotated[int, Field(ge=1)] = 32
    """Reconciles of IngestJobs, and of IngestSchedules, at once."""
    reconcile_timeout: Seconds = 30
    """Longest reconcile; what takes longer is tried again."""
    backoff_base: Seconds = 0.01
    """First pause after a failed reconcile; it doubles with each failure."""
    backoff_most: Seconds = 60
    """Longest pause after a failed reconcile."""
    resync: Seconds = 300
    """Time between comparisons of what is known with a fresh list, give or take a tenth."""
    stale_after: Seconds = 60
    """A watch must deliver what a list saw within that time, or the process ends to begin anew."""
    sync_poll: Seconds = 0.05
    """How often that comparison looks."""
    watch_inactivity: Seconds = 70
    """A watch without event or bookmark for that long is opened anew."""
    crd_poll: Seconds = 2
    """How often to look for missing resource definitions at the start."""
    drain: Seconds = 1.5
    """At the end, reconciles that run get that long, and so does giving the Lease back."""

    host: str = ""
    """Address of the two ports below; empty: all."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port of /healthz and /readyz; 0: a free one."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9090
    """Port of /metrics; 0: a free one."""
    lag_poll: Seconds = 1
    """How often the event loop's lag is measured."""
    lag_limit: Seconds = 10
    """/healthz fails if the event loop was later than that."""

    progress_interval: Seconds = 5
    """Time between two looks at the progress of all active jobs."""
    progress_writes: Annotated[int, Field(ge=1)] = 200
    """Most statuses that are renewed for the sake of progress at one such look; the others have their turn at the next."""
    row_patience: Seconds = 30
    """How long a finished Job waits for the orchestrator's word on the outcome, before its exit code alone decides."""
    row_memory: Seconds = 3600
    """How long after its end an IngestJob whose row nobody could ask about then is still told the row's last numbers."""
    row_batch_delay: Seconds = 0.02
    """Questions about single rows within that time travel together."""
    sweep_interval: Seconds = 60
    """Time between two searches for rows whose IngestJob is gone."""

    recheck: Seconds = 10
    """How often an IngestJob that waits for its knowledge base, its claim or a free place is looked at, if nothing happens before."""
    job_retention: Annotated[float, Field(ge=0)] = 300
    """How long a finished Job and its pods' logs stay; an IngestJob that is deleted takes them along."""
    max_jobs: Annotated[int, Field(ge=1)] = 20
    """Most Jobs made for one IngestJob, if somebody keeps deleting them."""
    max_concurrent_jobs: Count = 0
    """Most unfinished Jobs in a namespace; 0: no limit."""
    job_rate: Annotated[float, Field(gt=0)] = 200
    """Most Jobs created a second, in the long run."""
    job_burst: Annotated[int, Field(ge=1)] = 400
    """Most Jobs created at once."""
    max_cpu: str = "4"
    """Most CPU that an IngestJob may ask for."""
    max_memory: str = "8Gi"
    """Most memory that an IngestJob may ask for."""
    max_ephemeral_storage: str = "20Gi"
    """Most ephemeral storage that an IngestJob may ask for."""
    scratch_limit: str = "10Gi"
    """Size limit of each of a pod's two scratch volumes."""

    schedule_recheck: Seconds = 300
    """An IngestSchedule is looked at at least that often, should the machine's clock be set meanwhile."""
    schedule_refused_pause: Seconds = 60
    """Pause before a run that the API server refused is tried again."""
    base_workers: Annotated[int, Field(ge=1)] = 4
    """KnowledgeBases that the orchestrator is asked for at once."""
    base_interval: Seconds = 30
    """Time between two looks at a KnowledgeBase in which something happens: its counts, and how far a move to another embedding model is."""
    base_deletion_interval: Seconds = 5
    """Time between two looks at the deletion of a KnowledgeBase's knowledge."""
    base_retry_pause: Seconds = 600
    """Pause before a move to another model, or a deletion, that failed is tried again."""
    base_heartbeat: Seconds = 300
    """Time between two looks at one in which nothing happens; its lastUpdatedTime is renewed then."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages that are logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """json, console, or auto: console on a terminal, else json."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.retry_period < self.renew_deadline < self.lease_duration:
            raise ValueError("retry_period < renew_deadline < lease_duration must hold")
        if self.renew_deadline + self.request_timeout > self.lease_duration:
            raise ValueError("renew_deadline + request_timeout must be at most lease_duration")
        self.maxima()
        return self

    def maxima(self) -> dict[str, Decimal]:
        """The most of each resource that an IngestJob may ask for."""
        return {
            "cpu": parse_quantity(self.max_cpu),
            "memory": parse_quantity(self.max_memory),
            "ephemeral-storage": parse_quantity(self.max_ephemeral_storage),
        }

    def own_namespace(self) -> str:
        """Where the Lease lives.

        Raises:
            ConfigurationError: it is not set, and this is no pod.
        """
        if self.lease_namespace:
            return self.lease_namespace
        try:
            return _OWN_NAMESPACE.read_text(encoding="ascii").strip()
        except OSError as error:
            raise ConfigurationError("Outside a pod, set SHIELD_OPERATOR_LEASE_NAMESPACE.") from error
