"""IngestSchedule: IngestJobs made by the clock, with CronJob's fields and rules."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from shield_operator.api.common import Whole32, name_rule
from shield_operator.api.ingestjob import IngestJobSpec
from shield_operator.api.meta import Condition, Given, Resource, Shape, Time
from shield_operator.api.pods import LabelValue
from shield_operator.api.rules import MapOf, Rule, matches

MAX_NAME = 43
"""`<name>-<minutes>` names an IngestJob, of at most 52 characters."""


class ConcurrencyPolicy(StrEnum):
    """What to do when it is time and the last run is still going."""

    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"


class TemplateMetadata(Given):
    """Labels and annotations of the IngestJobs."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """labels of each IngestJob, such as `kueue.x-k8s.io/queue-name`."""
    annotations: Annotated[dict[str, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=16)] | None = None
    """annotations of each IngestJob."""


class IngestJobTemplate(Given):
    """What each IngestJob is made of."""

    metadata: TemplateMetadata | None = None
    """metadata holds labels and annotations of each IngestJob."""
    spec: IngestJobSpec
    """spec of each IngestJob."""


class IngestScheduleSpec(Given):
    """When, and what."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.ingestJobTemplate.spec.source.documents) || !has(self.ingestJobTemplate.spec.source.documents.uploadId)",
            "an upload can be ingested only once, so it cannot be scheduled",
            holds=lambda spec: (
                spec.ingest_job_template.spec.source.documents is None or spec.ingest_job_template.spec.source.documents.upload_id is None
            ),
            field=".ingestJobTemplate",
        ),
    )

    schedule: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128),
        matches(
            r"^\s*(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|([0-9A-Za-z*,/?#-]+\s+){4}[0-9A-Za-z*,/?#-]+)\s*$",
            "must be five cron fields such as 0 3 * * 1, or @hourly, @daily, @weekly, @monthly, @yearly; the time zone goes to timeZone",
        ),
    ]
    """schedule says when, in cron's five fields: minute, hour, day of the month, month, day of the week."""
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")] | None = None
    """timeZone of the schedule, such as Europe/Berlin. Default: UTC."""
    starting_deadline_seconds: Whole32 | None = None
    """startingDeadlineSeconds is how late a run may start; a later one is missed. Default: no limit."""
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW
    """concurrencyPolicy says what happens when it is time and a run is still going: Allow both, Forbid the new, Replace the old. Default: Allow."""
    suspend: bool = False
    """suspend makes no further runs; those that began go on."""
    jitter_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    """jitterSeconds spreads schedules of the same time: each starts up to that much later, always by the same amount. Default: 0."""
    successful_jobs_history_limit: Annotated[int, Field(ge=0, le=1000)] = 3
    """successfulJobsHistoryLimit is how many completed runs are kept. Default: 3."""
    failed_jobs_history_limit: Annotated[int, Field(ge=0, le=1000)] = 1
    """failedJobsHistoryLimit is how many failed runs are kept. Default: 1."""
    ingest_job_template: IngestJobTemplate
    """ingestJobTemplate is what each run is made of."""


class ActiveRun(Shape):
    """A run that is going."""

    name: Annotated[str, StringConstraints(max_length=63)]
    """name of the IngestJob."""
    uid: Annotated[str, StringConstraints(max_length=64)]
    """uid of the IngestJob."""


class IngestScheduleStatus(Shape):
    """What is. Written by the operator alone."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=8), MapOf(("type",))] = ()
    """conditions: Ready is True while the schedule can be followed."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """observedGeneration is the generation of the spec that this status is about."""
    active: Annotated[tuple[ActiveRun, ...], Field(max_length=100), MapOf(("uid",))] = ()
    """active are the runs that are going, at most 100 of them."""
    last_schedule_time: Time | None = None
    """lastScheduleTime is the time of the schedule that was acted upon last."""
    last_successful_time: Time | None = None
    """lastSuccessfulTime is when a run completed last."""
    next_schedule_time: Time | None = None
    """nextScheduleTime is when the next run starts, jitter included."""


class IngestSchedule(Resource):
    """IngestJobs made by the clock."""

    plural: ClassVar[str] = "ingestschedules"
    rules: ClassVar[tuple[Rule, ...]] = (name_rule(MAX_NAME, "its IngestJobs are named after it and the minute"),)

    kind: Literal["IngestSchedule"] = "IngestSchedule"
    spec: IngestScheduleSpec
    """spec says when, and what."""
    status: IngestScheduleStatus = IngestScheduleStatus()
    """status is what is, written by the operator."""
