"""What brings content in: crawls, documents, uploads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from shield.service.models.base import Input, KbName, Metadata, Model, Number, SourceName, Url, Whole

Sitemap = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^(auto|https?://.+)$")]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[/*]")]
FileGlob = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class CrawlSpec(Input):
    """Crawl a web site, beginning at `url`."""

    model_config = ConfigDict(json_schema_extra={"required": ["type", "url"]})  # `type` tells the two kinds of a spec apart

    type: Literal["crawl"] = "crawl"
    url: Url
    """Where to begin; http or https."""
    max_pages: Whole = Field(50, ge=1, le=10_000)
    """Most pages requested."""
    max_depth: Whole = Field(3, ge=0, le=20)
    """Most links from the start page, or from a page that a sitemap lists."""
    allowed_domains: list[Annotated[str, StringConstraints(max_length=253)]] = Field(default_factory=list, max_length=50)
    """Hosts that may be visited; default: the start page's host."""
    sitemaps: list[Sitemap] = Field(default_factory=list, max_length=10)
    """Begin with the pages of these sitemaps, too: `auto` for those the site names itself, or addresses."""
    include: list[Glob] = Field(default_factory=list, max_length=50)
    """Follow only links whose path matches one of these globs: `*` within a segment, `**` across, such as `/docs/**`."""
    exclude: list[Glob] = Field(default_factory=list, max_length=50)
    """Never request links whose path matches one of these globs; with `?` in a glob the query counts, too."""
    render: Literal["http", "browser", "auto"] | None = None
    """How pages are read: `http`; `browser` runs the scripts of every page; `auto` only of pages that are empty without them. Default:
    `auto` where a worker has Chromium, else `http`."""
    accept_crawl_delay: Number | None = Field(None, ge=0, le=3600)
    """Longest pause between pages, in seconds, that robots.txt may ask for."""
    refresh: bool = Field(False, strict=True)
    """Fetch and convert every page anew, even if the site says that it did not change since the last crawl."""
    remove_vanished: bool = Field(False, strict=True)
    """After a crawl that saw the whole site, remove the documents of pages that are no longer there."""
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


class DocumentsSpec(Input):
    """Ingest many documents in one job: exactly one of urls, path, upload_id."""

    model_config = ConfigDict(json_schema_extra={"required": ["type"]})

    type: Literal["documents"] = "documents"
    urls: Annotated[list[Url], Field(min_length=1, max_length=100)] | None = None
    """Fetch them from here; one that is named twice counts once."""
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """A file below the document root, or a directory with all files below it; `.` is the root. Only `shield run-job` reads it."""
    include: list[FileGlob] = Field(default_factory=list, max_length=50)
    """Of a directory, only files whose path below it matches one of these globs: `*` within a name, `**` across; without a leading `/` at any
    depth, such as `*.md`."""
    exclude: list[FileGlob] = Field(default_factory=list, max_length=50)
    """Of a directory, no file that matches one of these globs."""
    upload_id: UUID | None = None
    """Take this upload."""
    source: SourceName | None = None
    """Of an upload, what to call it; of a path, what comes before each file's path in its name, by default `file:`. Directories that hold files
    of the same names need different ones, or their documents replace each other."""
    metadata: Metadata = Field(default_factory=dict, max_length=32)
    """Stored with each document, to filter by."""


class Budget(Input):
    """What a job may cost."""

    tokens: Whole = Field(ge=1, le=10**12)
    """Most tokens of language models, prompts and answers together; no call starts that could pass it."""


class Webhook(Input):
    """An address that gets one signed POST when a job has ended."""

    url: Url
    """Where to; http or https, publicly reachable."""


class IngestRequest(Input):
    """Body of `POST /lightrag/ingest-async`."""

    knowledge_base: KbName = "default"
    """Where to."""
    spec: Annotated[CrawlSpec | DocumentSpec | DocumentsSpec, Field(discriminator="type")]
    """What to ingest."""
    priority: Literal["high", "normal", "low"] = "normal"
    """Which queue."""
    budget: Budget | None = None
    """What the job may cost; none: no limit."""
    webhook: Webhook | None = None
    """Who is told when the job has ended (docs/WEBHOOKS.md)."""


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
