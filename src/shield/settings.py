"""Every knob of Shield, one group a concern, each with the sentence that `shield config` and the docs show.

A setting is read from the environment (`SHIELD_` + group + `_` + field, as in `SHIELD_EGRESS_PORTS`) or, for secrets, from a
file named by the same variable with `_FILE` behind it. Nothing is guessed from partial settings: `SHIELD_MODE=server`
demands its three URLs. Defaults are decided in one table; change one only with an ADR.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shield.errors import ConfigInvalid

KiB, MiB, GiB = 1024, 1024**2, 1024**3
PREFIX = "SHIELD_"


def seconds(value: float) -> timedelta:
    """A duration in seconds."""
    return timedelta(seconds=value)


def _seconds_as_text(value: object) -> object:
    """Let `SHIELD_JOBS_LEASE=2` mean two seconds; ISO 8601 (`PT2S`) works too."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds_as_text)]
"""A duration; bare numbers are seconds."""


class Group(BaseModel):
    """Base of the groups: unknown fields are mistakes, and docstrings are the descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PostgresSettings(Group):
    dsn: SecretStr | None = None
    """PostgreSQL (15 or later, with pgvector) for server mode; embedded mode runs its own."""
    pool_size: int = Field(10, ge=1, le=200)
    """Connections a process keeps."""
    connect_timeout: Duration = seconds(5)
    """Longest wait for a connection."""
    statement_timeout: Duration = seconds(30)
    """Longest single statement."""
    dead_after: Duration = seconds(30)
    """Over TCP, a connection without a sign of life for this long is given up, here and by the server."""
    schema_wait: Duration = seconds(60)
    """How long a process of a fleet waits for the schema to be upgraded, and an upgrade for its turn."""
    lock_timeout: Duration = seconds(5)
    """Longest wait of a migration for a table, during which everybody else waits behind it; then it lets go and tries again."""


class RedisSettings(Group):
    url: SecretStr | None = None
    """Redis or Valkey for server mode: hints and events only, it may be lost at any time."""
    timeout: Duration = seconds(2)
    """Longest wait for an answer; a blocking read lasts half of it."""


class QdrantSettings(Group):
    url: str | None = None
    """Qdrant server for server mode; embedded mode uses Qdrant Edge in the data directory."""
    api_key: SecretStr | None = None
    """Qdrant's API key."""
    timeout: Duration = seconds(10)
    """Longest single call."""
    replicas: int = Field(1, ge=1, le=16)
    """Copies of each collection on a Qdrant cluster; with more than one, writes and reads ask a majority."""
    on_disk: bool = True
    """Keep the vectors of new collections in files that the kernel caches, instead of all in memory."""
    quantization: Literal["int8", "none"] = "int8"
    """How new collections are searched: `int8` = first over bytes kept in memory, then exactly over the candidates."""
    max_field_indexes: int = Field(32, ge=0, le=256)
    """Metadata fields a collection is indexed by, each when a filter first uses it; later ones are filtered without an index."""


def _endpoint_address(value: str | None) -> str | None:
    """An endpoint's address must be one, and holds no credential: that is the key's place."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an http:// or https:// address without credentials")
    return value


EndpointAddress = Annotated[str | None, AfterValidator(_endpoint_address)]


class EmbeddingSettings(Group):
    provider: Literal["builtin", "openai", "ollama"] = "builtin"
    """Who embeds: `builtin` = MiniLM on onnxruntime in this process; the others need `base_url`."""
    model: str = "all-minilm-l6-v2"
    """Model name; a collection's key is model and dimension."""
    dim: int = Field(384, ge=8, le=8192)
    """Length of a vector."""
    base_url: EndpointAddress = None
    """Address of an OpenAI-compatible or Ollama endpoint."""
    api_key: SecretStr | None = None
    """Key for that endpoint."""
    api_key_file: Path | None = None
    """File that holds the key; read again when it changes and when the endpoint refuses the key, so a rotated key needs no restart."""
    batch: int = Field(16, ge=1, le=512)
    """Texts a batch."""
    threads: int = Field(2, ge=1, le=64)
    """Threads of the builtin model."""
    timeout: Duration = seconds(60)
    """Longest single call."""


class ShadowSettings(EmbeddingSettings):
    """A second embedding model beside `embedding`: for a reindex, and for bases that are still on the other one."""

    provider: Literal["builtin", "openai", "ollama"] = "builtin"
    """Who embeds with a second model, to which a reindex moves a knowledge base, or from which; as `SHIELD_EMBEDDING_PROVIDER`."""
    model: str = "all-minilm-l6-v2"
    """The second model's name; bases that name it are embedded with it."""


class LlmSettings(Group):
    provider: Literal["none", "openai", "ollama"] = "none"
    """Who writes answers: `none` = extractive answers and a rule-based graph; `openai` = any OpenAI-compatible endpoint such as LiteLLM."""
    base_url: EndpointAddress = None
    """Address of the endpoint, for example http://127.0.0.1:11434."""
    model: str | None = None
    """Model name as the endpoint knows it."""
    api_key: SecretStr | None = None
    """Key for the endpoint."""
    api_key_file: Path | None = None
    """File that holds the key; read again when it changes and when the endpoint refuses the key, so a rotated key needs no restart."""
    max_tokens: int = Field(4096, ge=64, le=131_072)
    """Most tokens the model may answer with; an answer that needs more is refused."""
    concurrency: int = Field(4, ge=1, le=64)
    """Calls in flight at once."""
    timeout: Duration = seconds(120)
    """Longest extraction call."""
    query_timeout: Duration = seconds(40)
    """Longest call while a question waits; later, the answer is extractive and says so."""


class EgressSettings(Group):
    ports: Annotated[tuple[int, ...], NoDecode] = (80, 443)
    """Ports that caller-given addresses may use (comma-separated)."""
    allow: Annotated[tuple[str, ...], NoDecode] = ()
    """Private ranges that may be called all the same, each as CIDR:port (comma-separated)."""
    nat64: bool = False
    """Reach public IPv4 sites through NAT64 addresses (IPv6-only clusters with DNS64)."""
    resolve_timeout: Duration = seconds(5)
    """Longest wait for a host's addresses."""

    @field_validator("ports", "allow", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value


class CrawlSettings(Group):
    max_page_bytes: ByteSize = ByteSize(8 * MiB)
    """Largest decompressed page; a larger one is `page.too_large`."""
    page_timeout: Duration = seconds(30)
    """Longest time for one page, redirects included."""
    document_timeout: Duration = seconds(120)
    """Longest time for fetching one document by its address, redirects included."""
    max_redirects: int = Field(5, ge=0, le=20)
    """Redirect hops a page."""
    max_links: int = Field(500, ge=1)
    """Links followed from one page, in their order."""
    per_host_delay: Duration = timedelta(milliseconds=250)
    """Pause between the starts of two requests to one host when robots.txt names none."""
    per_host: int = Field(2, ge=1)
    """Requests to one host at once."""
    concurrency: int = Field(8, ge=1)
    """Requests of one process at once."""
    max_crawl_delay: Duration = seconds(30)
    """Longest pause robots.txt may ask for before the job must accept it explicitly."""
    max_retry_after: Duration = seconds(120)
    """Longest Retry-After that is waited out."""
    default_retry_after: Duration = seconds(5)
    """Pause after a 429 that names none."""
    throttle_retries: int = Field(2, ge=0)
    """Tries after a 429 or 503 with Retry-After."""
    max_robots_bytes: ByteSize = ByteSize(512 * KiB)
    """How much of robots.txt is read."""
    max_sitemap_bytes: ByteSize = ByteSize(50 * MiB)
    """Largest sitemap, decompressed."""
    max_sitemap_urls: int = Field(50_000, ge=1)
    """Addresses read from one sitemap."""
    max_sitemaps: int = Field(50, ge=1)
    """Sitemaps a crawl reads, those that an index names included."""
    robots_ttl: Duration = timedelta(hours=1)
    """How long a site's robots.txt is remembered."""
    robots_retry: Duration = seconds(60)
    """How long a robots.txt that could not be read counts as a refusal before it is asked for again."""
    max_queued: int = Field(10_000, ge=1)
    """Addresses a crawl remembers beyond its max_pages; links found later are dropped."""
    user_agent_token: str = "shield"  # noqa: S105
    """The name robots.txt rules are matched with."""


class BrowserSettings(Group):
    enabled: bool = True
    """Whether a Chromium that is found may be used."""
    executable: Path | None = None
    """Chromium's program; unset = `chromium` or `google-chrome` on the PATH."""
    sandbox: Literal["auto", "required"] = "auto"
    """Chromium's own sandbox: `auto` = wherever the kernel allows it, with a warning where not; `required` = no sandbox, no browser."""
    tabs: int = Field(2, ge=1, le=32)
    """Pages shown at once."""
    start: Duration = seconds(30)
    """Longest start of the browser."""
    idle: Duration = seconds(60)
    """After this pause the browser is stopped."""
    max_pages: int = Field(200, ge=1)
    """Pages after which the browser is replaced by a fresh one."""
    settle: Duration = seconds(5)
    """Longest wait, once a page is parsed, for its scripts to end their requests; then it is read as it is."""
    quiet: Duration = seconds(0.5)
    """Pause without a request after which a page counts as complete."""
    max_transfer: ByteSize = ByteSize(32 * MiB)
    """Most bytes that one page's scripts may send and receive; more is `page.too_large`."""
    max_requests: int = Field(500, ge=1)
    """Most requests of one page's scripts; further ones fail."""
    memory: ByteSize = ByteSize(1536 * MiB)
    """Memory of the browser, all its processes together; above it the largest one is killed."""


class FileSettings(Group):
    max_bytes: ByteSize = ByteSize(64 * MiB)
    """Largest file."""
    max_files: int = Field(10_000, ge=1)
    """Most files of a directory that one job ingests."""
    max_pages: int = 2000
    """Most pages or slides."""
    max_zip_entries: int = 10_000
    """Most entries of an Office file."""
    max_zip_bytes: ByteSize = ByteSize(512 * MiB)
    """Most bytes an Office file may unpack to."""
    max_zip_ratio: int = 200
    """Highest compression ratio of an entry."""
    max_xml_bytes: ByteSize = ByteSize(32 * MiB)
    """Largest XML member of an Office file."""
    max_cells: int = 1_000_000
    """Most cells of a workbook, merged ranges included."""
    max_csv_rows: int = 50_000
    """Most rows of a CSV file."""
    max_html_depth: int = 256
    """Deepest nesting of HTML or XML elements."""
    max_text_bytes: ByteSize = ByteSize(64 * MiB)
    """Most text a file may yield."""
    convert_timeout: Duration = seconds(120)
    """Time for a conversion, plus one second a page."""
    convert_memory: ByteSize = ByteSize(3 * GiB)
    """Address space of the converting child."""
    convert_idle: Duration = seconds(60)
    """After this pause the converter's process is stopped."""
    convert_start: Duration = seconds(60)
    """Longest start of the converter's process: it loads Docling once."""
    max_inline_bytes: ByteSize = ByteSize(1 * MiB)
    """Largest inline content."""
    upload_ttl: Duration = timedelta(hours=24)
    """How long an unused upload is kept."""
    upload_sweep: Duration = timedelta(hours=1)
    """How old a file without an upload must be before it is removed."""


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


class GraphSettings(Group):
    batch: Duration = seconds(30)
    """Longest time a knowledge base's graph writer is held at a stretch."""
    lease: Duration = seconds(45)
    """A writer that is silent for this long has lost the graph."""
    idle: Duration = seconds(30)
    """After this pause the graph's processes are stopped."""
    max_entities: int = Field(8, ge=1)
    """Entities the rule-based extraction takes from a chunk."""
    max_relations: int = Field(6, ge=1)
    """Relations the rule-based extraction takes from a chunk."""
    part: int = Field(64, ge=1, le=900)
    """Chunks written as one unit: what a crash repeats at most, and between two of them the writer can be handed over."""
    part_timeout: Duration = seconds(180)
    """Longest time one unit may take; then its process is killed."""
    start: Duration = seconds(60)
    """Longest start of a graph process: it loads LightRAG and, the first time, makes its tables."""
    query: Duration = seconds(20)
    """Longest time a question may spend in the graph."""


class QuerySettings(Group):
    timeout: Duration = seconds(55)
    """Longest time a tool or query may take; clients give up at 60 s."""
    top_k: int = 20
    """Entities and relations read from the graph."""
    chunk_top_k: int = 10
    """Chunks an answer is made of."""
    prefetch: int = 30
    """Hits each of the dense and the sparse search hand to the fusion."""
    rrf_k: int = 60
    """Constant of the reciprocal rank fusion."""
    floor: float = 0.25
    """Cosine below which a question counts as not answered by what is stored, unless the words themselves are found."""
    sure: float = 0.4
    """Cosine from which a question counts as answered even if it shares no word with a passage."""
    cursor_ttl: Duration = timedelta(minutes=10)
    """How long a cursor lives."""
    find_max_tokens: int = 4000
    """Default bound of a search's text."""


class LibrarySettings(Group):
    abandoned_after: Duration = timedelta(hours=1)
    """A note's write that has not ended by then was cut off; what it left is removed."""
    race_window: Duration = seconds(60)
    """A search that meets the old version of a document updated this recently looks again."""
    cache_keep: Duration = timedelta(days=7)
    """How long a cached vector is kept that no passage uses."""
    max_delete_batch: int = Field(20, ge=1, le=1000)
    """Documents whose deletion is proven in one pass over the stores."""
    rollback_window: Duration = timedelta(days=7)
    """How long after a flip the old collection is still written, so that a rollback finds it complete; then it is dropped."""
    golden_questions: int = Field(50, ge=1, le=500)
    """Questions a reindex takes from stored headings when the request brings none."""
    found_tolerance: float = Field(0.05, ge=0, le=1)
    """By how much the new collection's found rate may lie below the old one's for a reindex to flip by itself."""


class AuthSettings(Group):
    mode: Literal["none", "api-key", "oidc"] = "none"
    """Who may call: `none` serves loopback only; `api-key` keys made with `shield keys`; `oidc` access tokens of your identity provider."""
    allow_open: bool = False
    """Second half of saying twice that an open server may leave loopback (the first is SHIELD_HOST)."""
    key_grace: Duration = timedelta(hours=24)
    """How long a rotated key stays valid beside its successor."""
    key_seen: Duration = seconds(60)
    """Least pause between two writes of a key's last use."""
    introspection_ttl: Duration = Field(seconds(30), le=seconds(30))
    """How long an MCP server of a fleet remembers what the orchestrator said about a key."""
    hop_secret: SecretStr | None = None
    """Shared by the processes of a fleet, at least 32 bytes: signs the short-lived token that says for whom an MCP server calls."""
    clock_skew: Duration = Field(seconds(30), le=seconds(300))
    """How far the clocks of token issuers may be off."""
    issuer: str | None = None
    """OIDC: the issuer's address, exactly as its tokens name it."""
    audience: Annotated[tuple[str, ...], NoDecode] = ()
    """OIDC: what tokens must be meant for (comma-separated); default: the public URL, and the same with /mcp."""
    jwks_url: str | None = None
    """OIDC: address of the issuer's keys; default: as its discovery document says."""
    jwks_ttl: Duration = timedelta(hours=1)
    """OIDC: after this time the issuer's keys are fetched again."""
    jwks_keep: Duration = timedelta(hours=24)
    """OIDC: how long known keys go on while the issuer cannot be reached."""
    jwks_pause: Duration = seconds(10)
    """OIDC: least pause between two fetches, after a failure and for unknown keys alike."""
    jwks_timeout: Duration = seconds(5)
    """OIDC: longest fetch."""
    scope_claims: Annotated[tuple[str, ...], NoDecode] = ("scope", "scp")
    """OIDC: claims that hold scopes (comma-separated)."""
    group_claim: str | None = None
    """OIDC: claim that holds groups or roles, for SHIELD_AUTH_SCOPE_MAP only; a dot leads into a nested claim."""
    scope_map: Annotated[tuple[str, ...], NoDecode] = ()
    """OIDC: more scopes by scope or group, as `theirs=ours` (comma-separated): platform-team=admin,readers=kb:read."""
    kb_claim: str = "knowledge_bases"
    """OIDC: claim that lists the knowledge bases granted; `*` = all; a dot leads into a nested claim."""
    kb_default: Annotated[tuple[str, ...], NoDecode] = ("default",)
    """OIDC: knowledge bases of a token without that claim (comma-separated); `*` = all."""
    audit_queries: bool = False
    """Keep an audit record of each search and question: who, where, a keyed hash and the length; never the text."""

    @field_validator("audience", "scope_claims", "scope_map", "kb_default", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value


class ApiSettings(Group):
    key: SecretStr | None = None
    """Key or token that the command line shows to the server at SHIELD_URL."""
    max_body_bytes: ByteSize = ByteSize(2 * MiB)
    """Largest request body other than an upload."""
    body_idle: Duration = seconds(30)
    """Longest pause within a request body."""
    body_timeout: Duration = timedelta(minutes=15)
    """Longest time for a whole request body."""
    drain: Duration = seconds(1)
    """How long a stopping server lets requests end that it has begun; more than the longest tool where servers are replaced one by one."""
    linger: Duration = seconds(2)
    """How long the rest of a refused body is read and dropped, so that its sender sees the answer."""
    keep_alive: Duration = seconds(15)
    """Pause after which a silent event stream sends a comment."""
    max_active: int = Field(6, ge=1)
    """Requests that one process works on at once; more wait for their turn."""
    max_answering: int = Field(32, ge=1)
    """Questions that one process answers at once, most of which wait for a language model."""
    max_waiting: int = Field(1000, ge=1)
    """Requests of one process that only wait: for a job's end, its events, or the rest of a body."""
    turn: Duration = seconds(0.3)
    """Longest wait for a turn; then the answer is 503 with Retry-After."""
    max_lag: Duration = seconds(0.5)
    """How far the event loop may lag behind, with more than a few requests inside, before new requests are refused at once."""


class ClientSettings(Group):
    connect: Duration = seconds(3)
    """Longest wait for a connection to a Shield server."""
    timeout: Duration = seconds(65)
    """Longest silence of a Shield server while it answers; more than any of its own limits."""


class OrchestratorSettings(Group):
    url: str | None = None
    """Where `shield mcp` finds the orchestrator, for example http://127.0.0.1:8001."""


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


class ProbeSettings(Group):
    url: str | None = None
    """The MCP endpoint that `shield probe` asks, for example http://127.0.0.1:8000/mcp; default: that of SHIELD_URL."""
    interval: Duration = seconds(30)
    """Time from the beginning of one synthetic tool call to that of the next."""
    timeout: Duration = seconds(10)
    """Longest synthetic tool call, connecting included."""
    knowledge_base: str = "default"
    """Where it looks something up; the credential must be allowed to read it."""
    api_key: SecretStr | None = None
    """Key or token that it shows; default: SHIELD_API_KEY."""


class BackupSettings(Group):
    timeout: Duration = seconds(120)
    """Longest single request to the object store, and longest silence of the database while it is read."""
    chunk: ByteSize = ByteSize(32 * MiB)
    """Size of a part of an object; an object has at most 10 000 of them."""


class TelemetrySettings(Group):
    otlp_endpoint: str | None = None
    """Where traces are sent (OTLP over HTTP), for example http://127.0.0.1:4318; needs the extra `otlp`."""
    sample: float = Field(1.0, ge=0, le=1)
    """Share of the traces begun here that are recorded; a caller's decision is kept."""


class HealthSettings(Group):
    max_lag: Duration = seconds(10)
    """How far the event loop may lag behind before /livez of the metrics port answers 503."""
    probe: Duration = seconds(10)
    """Pause between two looks whether PostgreSQL and Redis are there, for the metrics."""


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


class BreakerSettings(Group):
    threshold: int = Field(5, ge=1)
    """Failures in a row that open a circuit."""
    pause: Duration = seconds(60)
    """How long an open circuit refuses calls before one probe."""


def _default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/shield")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "shield"


class Settings(BaseSettings):
    """All settings; build one with `load()`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    url: str | None = None
    """A running Shield server that the command line talks to, instead of the data directory's owner."""
    mode: Literal["embedded", "server"] = "embedded"
    """`embedded` = one process with its own PostgreSQL; `server` = a fleet on services you run."""
    host: str = "127.0.0.1"
    """Address the server binds."""
    port: int = Field(8000, ge=0, le=65535)
    """Port of MCP and REST; 0 = a free one, printed."""
    metrics_port: int = Field(9090, ge=0, le=65535)
    """Port of the metrics; 0 = a free one, printed."""
    public_url: str | None = None
    """Address under which clients reach this server, when a proxy stands before it."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """More Host names to serve (comma-separated)."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call this server (comma-separated)."""
    data_dir: Path = Field(default_factory=_default_data_dir)
    """Where embedded mode keeps everything; one owner at a time."""
    document_root: Path | None = None
    """Folder below which files may be ingested by path, on loopback and stdio only; unset = never."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` = readable on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""

    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    qdrant: QdrantSettings = QdrantSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    shadow: ShadowSettings = ShadowSettings()
    llm: LlmSettings = LlmSettings()
    egress: EgressSettings = EgressSettings()
    crawl: CrawlSettings = CrawlSettings()
    browser: BrowserSettings = BrowserSettings()
    file: FileSettings = FileSettings()
    jobs: JobSettings = JobSettings()
    graph: GraphSettings = GraphSettings()
    query: QuerySettings = QuerySettings()
    library: LibrarySettings = LibrarySettings()
    auth: AuthSettings = AuthSettings()
    api: ApiSettings = ApiSettings()
    client: ClientSettings = ClientSettings()
    breaker: BreakerSettings = BreakerSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    worker: WorkerSettings = WorkerSettings()
    webhook: WebhookSettings = WebhookSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    health: HealthSettings = HealthSettings()
    backup: BackupSettings = BackupSettings()
    probe: ProbeSettings = ProbeSettings()

    @field_validator("allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value

    @model_validator(mode="after")
    def _server_mode_is_complete(self) -> Self:
        if self.mode == "server":
            missing = [
                name
                for name, value in (
                    ("SHIELD_POSTGRES_DSN", self.postgres.dsn),
                    ("SHIELD_REDIS_URL", self.redis.url),
                    ("SHIELD_QDRANT_URL", self.qdrant.url),
                )
                if not value
            ]
            if missing:
                raise ValueError(f"SHIELD_MODE=server needs {', '.join(missing)}")
        if self.llm.provider != "none" and not (self.llm.base_url and self.llm.model):
            raise ValueError("SHIELD_LLM_PROVIDER needs SHIELD_LLM_BASE_URL and SHIELD_LLM_MODEL")
        for name, group in (("EMBEDDING", self.embedding), ("SHADOW", self.shadow)):
            if group.provider != "builtin" and not group.base_url:
                raise ValueError(f"SHIELD_{name}_PROVIDER needs SHIELD_{name}_BASE_URL")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _SecretFiles(settings_cls), _Environment(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `SHIELD_<GROUP>_<FIELD>_FILE` for every secret field."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable, (group, name) in _secret_files().items():
            if path := os.environ.get(variable):
                try:
                    found.setdefault(group, {})[name] = Path(path).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    raise ConfigInvalid(f"{variable} names a file that cannot be read.") from error
        return found


class _Environment(EnvSettingsSource):
    """The environment without the variables that `_SecretFiles` reads, which would look like unknown fields of their groups."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        kept_elsewhere = {variable for variable, (group, name) in _secret_files().items() if not _declares(group, f"{name}_file")}
        return {name: value for name, value in super()._load_env_vars().items() if name.upper() not in kept_elsewhere}


def _declares(group: str, name: str) -> bool:
    model = Settings.model_fields[group].annotation
    return isinstance(model, type) and issubclass(model, Group) and name in model.model_fields


def _secret_files() -> dict[str, tuple[str, str]]:
    """The variables that may name a file, with the group and field each stands for."""
    groups = {name: info.annotation for name, info in Settings.model_fields.items()}
    return {
        f"{PREFIX}{group}_{name}_FILE".upper(): (group, name)
        for group, model in groups.items()
        if isinstance(model, type) and issubclass(model, Group)
        for name, field in model.model_fields.items()
        if SecretStr in getattr(field.annotation, "__args__", ()) or (group, name) == ("qdrant", "url")
    }


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` win (for tests and command-line options).

    Raises:
        ConfigInvalid: a value is missing, unknown or out of range; the message names it, never its content.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" if item["loc"] else item["msg"]
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigInvalid(f"The configuration is not valid. {problems}") from error


@dataclass(frozen=True)
class SettingRow:
    """One setting as people see it: its variable, its value (secrets masked), and what it means."""

    variable: str
    value: str
    is_default: bool
    description: str


def describe(settings: Settings) -> list[SettingRow]:
    """All settings in their order; `shield config` and docs/SETTINGS.md are made of this."""
    rows: list[SettingRow] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Group):
            for part, inner in type(value).model_fields.items():
                rows.append(_row(f"{PREFIX}{name}_{part}".upper(), getattr(value, part), inner))
        else:
            rows.append(_row(f"{PREFIX}{name}".upper(), value, field))
    return rows


def _row(variable: str, value: Any, field: FieldInfo) -> SettingRow:
    default = field.get_default(call_default_factory=True, validated_data={})
    return SettingRow(variable, _shown(value), value == default, field.description or "")


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "unset"
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, ByteSize):
        return value.human_readable()
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value)  # a SecretStr prints as asterisks
