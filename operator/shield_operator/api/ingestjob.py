"""IngestJob: content that becomes knowledge once, as a Kubernetes Job."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from shield_operator.api.common import Count, Domain, FileGlob, Metadata, RelativePath, Sitemap, Url, UrlGlob, Whole32, name_rule
from shield_operator.api.meta import Condition, ConditionStatus, Given, Resource, Shape, Time, find
from shield_operator.api.pods import PodTemplate
from shield_operator.api.rules import ListType, MapOf, Rule, exactly_one, immutable
from shield_operator.names import GROUP, MANAGER

MAX_NAME = 52
"""`<name>-<attempt>` names the Job, and that name and a suffix its pods."""

Globs = Field(max_length=50)
KnowledgeBaseName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]


class Render(StrEnum):
    """How pages are read."""

    HTTP = "http"
    BROWSER = "browser"
    AUTO = "auto"


class WebSource(Given):
    """A web site."""

    url: Url
    """url is where to begin; http or https."""
    max_pages: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """maxPages is how many pages are requested at most. Default: 50."""
    max_depth: Annotated[int, Field(ge=0, le=20)] | None = None
    """maxDepth is how many links to follow from the start page, or from a page that a sitemap lists. Default: 3."""
    allowed_domains: Annotated[tuple[Domain, ...], Field(max_length=50), ListType.SET] = ()
    """allowedDomains are the hosts that may be visited. Default: the start page's host."""
    sitemaps: Annotated[tuple[Sitemap, ...], Field(max_length=10), ListType.SET] = ()
    """sitemaps to begin with, too: `auto` for those that the site names itself, or addresses."""
    include: Annotated[tuple[UrlGlob, ...], Globs, ListType.SET] = ()
    """include follows only links whose path matches one of these patterns: `*` within a segment, `**` across, such as `/docs/**`."""
    exclude: Annotated[tuple[UrlGlob, ...], Globs, ListType.SET] = ()
    """exclude never requests links whose path matches one of these patterns."""
    render: Render | None = None
    """render says how pages are read: `http`; `browser` runs the scripts of every page; `auto` only of pages that are empty without them."""
    accept_crawl_delay_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """acceptCrawlDelaySeconds is the longest pause between pages that robots.txt may ask for. Default: 30."""
    refresh: bool = False
    """refresh fetches and converts every page anew, even if the site says that it did not change."""
    remove_vanished: bool = False
    """removeVanished removes the documents of pages that are no longer there, after a crawl that saw the whole site."""


class ClaimSource(Given):
    """Files of a volume."""

    claim_name: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """claimName is the PersistentVolumeClaim, in this namespace. It needs the label `shield.hx-citadel.io/ingest=true` and is only read."""
    path: RelativePath | None = None
    """path is a file or a directory below the volume's root. Default: all of it."""
    include: Annotated[tuple[FileGlob, ...], Globs, ListType.SET] = ()
    """include takes only files whose path below `path` matches one of these patterns, such as `**/*.pdf`."""
    exclude: Annotated[tuple[FileGlob, ...], Globs, ListType.SET] = ()
    """exclude leaves out files whose path below `path` matches one of these patterns."""


class DocumentsSource(Given):
    """Documents: exactly one of urls, persistentVolumeClaim, uploadId."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("urls", "persistentVolumeClaim", "uploadId"),)

    urls: Annotated[tuple[Url, ...], Field(min_length=1, max_length=100), ListType.SET] | None = None
    """urls are fetched one by one; links in them are not followed."""
    persistent_volume_claim: ClaimSource | None = None
    """persistentVolumeClaim holds files to read."""
    upload_id: (
        Annotated[
            str, StringConstraints(min_length=36, max_length=36, pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
        ]
        | None
    ) = None
    """uploadId is an upload that this namespace made."""


class Source(Given):
    """What to ingest: exactly one of web, documents."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("web", "documents"),)

    web: WebSource | None = None
    """web crawls a site."""
    documents: DocumentsSource | None = None
    """documents ingests single documents."""


class IngestJobSpec(Given):
    """What the user wants. Defaults are applied when it is read, and never written."""

    source: Source
    """source says what to ingest: a web site or documents."""
    knowledge_base: KnowledgeBaseName
    """knowledgeBase is the KnowledgeBase in this namespace that the content goes to."""
    metadata: Metadata | None = None
    """metadata is stored with each document, to filter by."""
    budget_tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """budgetTokens is how many tokens of language models the job may use, prompts and answers together. Default: no limit."""
    strict: bool = False
    """strict makes the job fail if any document failed. Default: it completes with reason PartiallyCompleted."""
    suspend: bool = False
    """suspend stops the job, pods and deadlines, until it is set to false; finished work is kept."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """backoffLimit is how many failed pods are replaced. Default: 3."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """activeDeadlineSeconds is how long the job may run, pauses left out, before it fails. Default: 3600."""
    pending_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """pendingDeadlineSeconds is how long the job may wait for a pod to start, before it fails. Default: 600."""
    ttl_seconds_after_finished: Whole32 = 86_400
    """ttlSecondsAfterFinished is how long the finished job stays, before it is deleted; its knowledge stays. Default: 86400."""
    managed_by: Annotated[str, StringConstraints(min_length=1, max_length=63)] = MANAGER
    """managedBy is the controller in charge, such as `kueue.x-k8s.io/multikueue`. Default: this operator."""
    pod_template: PodTemplate | None = None
    """podTemplate says where the pod runs and how much it may use."""


IMMUTABLE = tuple(
    immutable(field)
    for field in ("source", "knowledgeBase", "metadata", "budgetTokens", "strict", "backoffLimit", "managedBy", "podTemplate")
)


class ConditionType(StrEnum):
    """The conditions of an IngestJob; all are set at first sight."""

    ACCEPTED = "Accepted"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Reason(StrEnum):
    """Why a condition is as it is. `Failed` also takes any error code of the server in CamelCase.

    `Complete` tells the whole story in its reason, which is what `kubectl get` shows as STATE: while it is not True, `Pending`, `Running`,
    `Suspended` or `QueuedByKueue`; once it failed, the reason of `Failed`; if it was not accepted, the reason of `Accepted`.
    """

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    KNOWLEDGE_BASE_NOT_FOUND = "KnowledgeBaseNotFound"
    KNOWLEDGE_BASE_NOT_READY = "KnowledgeBaseNotReady"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_NOT_LABELLED = "ClaimNotLabelled"
    RESOURCES_ABOVE_MAXIMUM = "ResourcesAboveMaximum"

    SUSPENDED = "Suspended"
    QUEUED_BY_KUEUE = "QueuedByKueue"
    RESUMED = "Resumed"
    NOT_SUSPENDED = "NotSuspended"

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    PARTIALLY_COMPLETED = "PartiallyCompleted"

    NOT_FAILED = "NotFailed"
    CANCELLED = "Cancelled"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PENDING_DEADLINE_EXCEEDED = "PendingDeadlineExceeded"
    JOB_NAME_CONFLICT = "JobNameConflict"


class Progress(Shape):
    """How far the job is; as old as lastUpdatedTime says."""

    stage: Annotated[str, StringConstraints(max_length=64)] | None = None
    """stage is what the job does now."""
    pages_found: Count | None = None
    """pagesFound counts the pages known so far."""
    pages_fetched: Count | None = None
    """pagesFetched counts the pages requested."""
    documents: Count | None = None
    """documents counts the documents stored."""
    chunks: Count | None = None
    """chunks counts the passages stored."""
    failed: Count | None = None
    """failed counts the documents and pages that failed."""
    bytes: Count | None = None
    """bytes counts what was read."""
    percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """percentage is how much of the work known so far is done."""
    last_updated_time: Time | None = None
    """lastUpdatedTime is when these numbers were read."""


class IngestJobStatus(Shape):
    """What is. Written by the operator alone."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=8), MapOf(("type",))] = ()
    """conditions are Accepted, Suspended, Complete and Failed; wait for them with `kubectl wait --for=condition=Complete`."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """observedGeneration is the generation of the spec that this status is about."""
    start_time: Time | None = None
    """startTime is when the job was first allowed to run."""
    completion_time: Time | None = None
    """completionTime is when it completed or failed."""
    attempts: Whole32 | None = None
    """attempts counts the pods that were started for it, but for those that a disruption ended: these cost nothing."""
    job_name: Annotated[str, StringConstraints(max_length=63)] | None = None
    """jobName is the Job that runs it now, or ran it last."""
    job_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    """jobId is its id in the orchestrator, over REST and MCP."""
    outcome: Annotated[str, StringConstraints(max_length=64)] | None = None
    """outcome is what became of the documents, as the orchestrator says it."""
    progress: Progress | None = None
    """progress says how far it is."""

    def true(self, type_: ConditionType) -> bool:
        """A condition holds."""
        condition = find(self.conditions, type_)
        return condition is not None and condition.status is ConditionStatus.TRUE

    @property
    def finished(self) -> bool:
        """It completed or failed, for good."""
        return self.true(ConditionType.COMPLETE) or self.true(ConditionType.FAILED)


class IngestJob(Resource):
    """Content that becomes knowledge once."""

    plural: ClassVar[str] = "ingestjobs"
    rules: ClassVar[tuple[Rule, ...]] = (name_rule(MAX_NAME, "its Jobs and pods are named after it"),)

    kind: Literal["IngestJob"] = "IngestJob"
    spec: Annotated[IngestJobSpec, *IMMUTABLE]
    """spec is what to ingest, where to, and how long it may take. Only suspend and the three durations can be changed."""
    status: IngestJobStatus = IngestJobStatus()
    """status is what is, written by the operator."""


INGESTJOB_RESOURCE = f"{IngestJob.plural}.{GROUP}"
