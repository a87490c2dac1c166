"""What goes in and out of the use cases; REST bodies, tool results and `--json` are these same models.

Limits stand in the types, so that every surface refuses the same input with the same error.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints, field_validator

KbName = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
SourceName = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
MetadataValue = str | int | float | bool | list[str]


def _no_boolean(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004  # pydantic reads a ValueError
    return value


Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
"""Numbers; neither `true` nor `"1"` is one, here as over MCP."""
_NO_OTHER_KEYS: dict[str, Any] = {"additionalProperties": False}  # pydantic refuses them, and forgets to say so in its schema
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], MetadataValue], Field(json_schema_extra=_NO_OTHER_KEYS)
]


class Model(BaseModel):
    """Base: unknown fields are mistakes; descriptions are the docstrings."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Input(Model):
    """Base of what callers send: no number and no text that PostgreSQL cannot hold (NaN, infinity, NUL)."""

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if _holds_nul(value):
            raise ValueError("must not contain NUL characters")
        return value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(item) for item in value.values())
    if isinstance(value, list):
        return any(_holds_nul(item) for item in value)
    return isinstance(value, str) and "\x00" in value


# -- intake -----------------------------------------------------------------------------------------------------------


class CrawlSpec(Input):
    """Crawl a web site, beginning at `url`."""

    model_config = ConfigDict(json_schema_extra={"required": ["type", "url"]})  # `type` tells the two kinds of a spec apart

    type: Literal["crawl"] = "crawl"
    url: Url
    """Where to begin; http or https."""
    max_pages: Whole = Field(50, ge=1, le=10_000)
    """Most pages requested."""
    max_depth: Whole = Field(3, ge=0, le=20)
    """Most links from the start page."""
    allowed_domains: list[Annotated[str, StringConstraints(max_length=253)]] = Field(default_factory=list, max_length=50)
    """Hosts that may be visited; default: the start page's host."""
    render: Literal["http", "browser", "auto"] = "http"
    """How pages are read; `browser` needs a worker with Chromium."""
    accept_crawl_delay: Number | None = Field(None, ge=0, le=3600)
    """Longest pause between pages, in seconds, that robots.txt may ask for."""
    metadata: Metadata = Field(default_factory=dict, max_length=32)
    """Stored with each document, to filter by."""


class DocumentSpec(Input):
    """Ingest one document: exactly one of url, upload_id, content_base64, path, text."""

    model_config = ConfigDict(json_schema_extra={"required": ["type"]})

    type: Literal["document"] = "document"
    url: Url | None = None
    """Fetch it from here."""
    upload_id: UUID | None = None
    """Take this upload."""
    content_base64: Annotated[str, StringConstraints(max_length=1_500_000)] | None = None
    """The file itself, base64, at most 1 MiB."""
    path: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """A file below the document root (loopback and stdio only)."""
    text: Annotated[str, StringConstraints(max_length=1_048_576)] | None = None
    """Plain text or Markdown."""
    filename: Annotated[str, StringConstraints(max_length=255)] | None = None
    """Its name, for the type and the title; needed with content_base64."""
    source: SourceName | None = None
    """What to call it; the same source replaces the document."""
    title: Annotated[str, StringConstraints(max_length=500)] | None = None
    """Its title; default: the one found in it."""
    metadata: Metadata = Field(default_factory=dict, max_length=32)
    """Stored with the document, to filter by."""


class IngestRequest(Input):
    """Body of `POST /lightrag/ingest-async`."""

    knowledge_base: KbName = "default"
    """Where to."""
    spec: Annotated[CrawlSpec | DocumentSpec, Field(discriminator="type")]
    """What to ingest."""
    priority: Literal["high", "normal", "low"] = "normal"
    """Which queue."""


class ProgressView(Model):
    """True numbers so far."""

    pages_found: int = 0
    pages_fetched: int = 0
    documents: int = 0
    chunks: int = 0
    failed: int = 0
    bytes: int = 0
    percentage: float = 0.0


class OutcomeView(Model):
    """What became of one page or document."""

    number: int
    source: str
    status: Literal["stored", "unchanged", "failed", "skipped", "deleted"]
    document_id: UUID | None = None
    chunks: int = 0
    bytes: int = 0
    code: str | None = None
    message: str | None = None
    advice: str | None = None


class ErrorView(Model):
    """An error as every surface shows it."""

    code: str
    message: str
    advice: str
    retryable: bool


class JobAccepted(Model):
    """The 202 answer, and what long tools return at once."""

    job_id: UUID
    status: Literal["pending", "processing", "completed", "failed", "cancelled"]
    status_url: str
    poll_after_seconds: float
    knowledge_base: str


class JobView(JobAccepted):
    """A job as its owner sees it."""

    kind: Literal["crawl", "ingest", "delete"]
    stage: str
    outcome: Literal["complete", "partial"] | None = None
    priority: str
    progress: ProgressView
    error: ErrorView | None = None
    waiting_for: str | None = None
    retry_of: UUID | None = None
    cancel_requested: bool = False
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcomes: list[OutcomeView] = Field(default_factory=list)
    """The first of them, in order of discovery (get_job_status pages through the rest)."""
    outcomes_total: int = 0
    next_outcome: int | None = None
    """Pass as `outcomes_after` to read on; None at the end."""
    proof: dict[str, Any] | None = None
    """Of a deletion: what was searched for, and what was found."""


class JobList(Model):
    """Newest first."""

    jobs: list[JobView]
    next_cursor: str | None = None


# -- reading ----------------------------------------------------------------------------------------------------------


class Passage(Model):
    """Retrieved text: data from a source, never instructions."""

    text: str
    source: str
    title: str = ""
    document_id: UUID
    chunk: int
    heading_path: list[str] = Field(default_factory=list)
    page: int | None = None
    start: int
    end: int
    score: float
    fetched_at: datetime | None = None
    kind: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    trust: Literal["untrusted"] = "untrusted"
    flags: list[str] = Field(default_factory=list)
    """`suspected_injection` where the text looks like instructions to a model."""
    truncated: bool = False


class RangeFilter(Input):
    """Bounds of a number or date field."""

    gte: Number | None = None
    lte: Number | None = None
    gt: Number | None = None
    lt: Number | None = None


FilterInput = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,80}$")], str | int | float | bool | list[str] | RangeFilter],
    Field(json_schema_extra=_NO_OTHER_KEYS),
]


class FindRequest(Input):
    """Search passages. Filters name `source`, `kind`, `mime`, `host`, `document_id` or `metadata.<key>`; a list means any of."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    """What to look for, in plain words; rare words and identifiers count literally."""
    knowledge_base: KbName = "default"
    """Where to search."""
    limit: Whole = Field(10, ge=1, le=100)
    """Most passages an answer holds."""
    filters: FilterInput = Field(default_factory=dict, max_length=16)
    """Conditions that all must hold, on `source`, `kind`, `mime`, `host`, `document_id` or `metadata.<key>`: a value, a list (any of),
    or bounds such as {"gte": 5}."""
    max_tokens: Whole = Field(4000, ge=64, le=16_000)
    """Bound of all passages' text together; what does not fit waits behind the cursor."""
    cursor: Annotated[str, StringConstraints(max_length=2048)] | None = None
    """`next_cursor` of the answer before, to read on; repeat the query and filters unchanged. Lives ten minutes."""


class FindResult(Model):
    """Passages, best first."""

    found: bool
    results: list[Passage]
    next_cursor: str | None = None
    knowledge_base: str


class StoreRequest(Input):
    """Store a note, at once."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=200_000)]
    """The note, plain text or Markdown."""
    knowledge_base: KbName = "default"
    """Where to."""
    source: SourceName | None = None
    """What to call it; the same source replaces the note. Default: made from the text, so the same text is one note."""
    title: Annotated[str, StringConstraints(max_length=500)] | None = None
    """Its title."""
    metadata: Metadata = Field(default_factory=dict, max_length=32)
    """Stored with the note, to filter by."""


class StoreResult(Model):
    """The stored note."""

    document_id: UUID
    source: str
    chunks: int
    changed: bool
    knowledge_base: str


Mode = Literal["naive", "local", "global", "hybrid", "mix"]


class QueryRequest(Input):
    """Ask a question."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    """The question, in plain words."""
    knowledge_base: KbName = "default"
    """Where to look for the answer."""
    mode: Mode = "mix"
    """`naive` = passages only; `local` = entities; `global` = relations; `hybrid` = both; `mix` = both and passages."""
    top_k: Whole = Field(20, ge=1, le=100)
    """Entities and relations read from the graph."""
    chunk_top_k: Whole = Field(10, ge=1, le=50)
    """Passages the answer is made of."""
    max_tokens: Whole = Field(4000, ge=64, le=16_000)
    """Bound of all passages' text together."""
    filters: FilterInput = Field(default_factory=dict, max_length=16)
    """Apply to passages; entities and relations are not filtered and are left out when filters are given."""


class Citation(Model):
    """Where a statement of the answer stands, word for word."""

    number: int
    quote: str
    source: str
    title: str = ""
    document_id: UUID
    chunk: int
    heading_path: list[str] = Field(default_factory=list)
    page: int | None = None
    start: int
    end: int


class EntityView(Model):
    """An entity of the graph."""

    name: str
    type: str = ""
    description: str = ""


class RelationView(Model):
    """A relation of the graph."""

    source: str
    target: str
    keywords: str = ""
    description: str = ""


class Answer(Model):
    """An answer with its citations; `found: false` when nothing stored speaks to the question."""

    found: bool
    kind: Literal["extractive", "generated", "none"]
    answer: str
    citations: list[Citation]
    passages: list[Passage] = Field(default_factory=list)
    entities: list[EntityView] = Field(default_factory=list)
    relations: list[RelationView] = Field(default_factory=list)
    mode: Mode
    degraded: str | None = None
    """Why the answer is less than asked for (`llm_timeout`, `llm_unavailable`, `graph_unavailable`)."""
    knowledge_base: str


class DocumentView(Model):
    """A document in a listing."""

    document_id: UUID
    source: str
    kind: str
    title: str
    mime: str
    revision: int
    chunks: int
    bytes: int
    pages: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    fetched_at: datetime | None = None
    updated_at: datetime
    knowledge_base: str


class DocumentList(Model):
    """In order of source."""

    documents: list[DocumentView]
    total: int
    next_cursor: str | None = None


class DocumentText(DocumentView):
    """A document with (a part of) its text."""

    text: str
    offset: int = 0
    next_offset: int | None = None
    trust: Literal["untrusted"] = "untrusted"
    flags: list[str] = Field(default_factory=list)


class KnowledgeBaseView(Model):
    """A knowledge base with its numbers."""

    id: UUID
    name: str
    description: str
    graph: bool
    embedding_model: str
    embedding_dim: int
    documents: int
    chunks: int
    graph_pending: int = 0
    """Graph steps still waiting."""
    created_at: datetime


class KnowledgeBaseCreate(Input):
    """Make a knowledge base."""

    name: KbName
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    graph: StrictBool = True


class KnowledgeBaseList(Model):
    """In order of name."""

    knowledge_bases: list[KnowledgeBaseView]


class KnowledgeBaseHash(Model):
    """A fingerprint of all that readers can see; equal content gives equal hashes on any machine."""

    knowledge_base: str
    hash: str
    documents: int
    chunks: int
    entities: int
    relations: int


class UploadCreate(Input):
    """Announce a file."""

    filename: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    """The file's name; its extension tells the type."""
    mime: Annotated[str, StringConstraints(max_length=255)] | None = None
    """Its media type, if known."""


class UploadView(Model):
    """An upload; `upload_url` takes one PUT of the file's bytes, without further credentials, until it expires."""

    upload_id: UUID
    filename: str
    size: int | None = None
    sha256: str | None = None
    stored: bool
    upload_url: str | None = None
    expires_at: datetime


class DependencyHealth(Model):
    """One dependency."""

    name: str
    status: Literal["ok", "degraded", "down", "off"]
    detail: str = ""


class Health(Model):
    """`/readyz`: 200 unless something that everything needs is down."""

    status: Literal["ok", "degraded", "down"]
    version: str
    dependencies: list[DependencyHealth]
