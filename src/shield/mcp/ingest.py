"""Tools that bring content in. They return at once with a job; only `create_upload` answers with its result."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from shield.errors import DocumentRootRefused
from shield.mcp.parameters import Base, Metadata, Title
from shield.mcp.toolbox import Toolbox, accepted, build, like
from shield.service.models import (
    Budget,
    CrawlSpec,
    DocumentSpec,
    Glob,
    IngestRequest,
    JobAccepted,
    Sitemap,
    SourceName,
    UploadCreate,
    UploadView,
    Url,
    Webhook,
)
from shield.telemetry.traces import traceparent

StartUrl = Annotated[Url, like(CrawlSpec, "url")]
MaxPages = Annotated[int, like(CrawlSpec, "max_pages")]
MaxDepth = Annotated[int, like(CrawlSpec, "max_depth")]
Domains = Annotated[list[Annotated[str, StringConstraints(max_length=253)]] | None, like(CrawlSpec, "allowed_domains")]
Sitemaps = Annotated[list[Sitemap] | None, like(CrawlSpec, "sitemaps")]
Include = Annotated[list[Glob] | None, like(CrawlSpec, "include")]
Exclude = Annotated[list[Glob] | None, like(CrawlSpec, "exclude")]
Refresh = Annotated[bool, like(CrawlSpec, "refresh")]
RemoveVanished = Annotated[bool, like(CrawlSpec, "remove_vanished")]
Render = Annotated[Literal["http", "browser", "auto"] | None, like(CrawlSpec, "render")]
CrawlDelay = Annotated[float | None, like(CrawlSpec, "accept_crawl_delay")]

DocumentUrl = Annotated[Url | None, like(DocumentSpec, "url")]
UploadId = Annotated[UUID | None, like(DocumentSpec, "upload_id")]
Inline = Annotated[Annotated[str, StringConstraints(max_length=1_500_000)] | None, like(DocumentSpec, "content_base64")]
FileName = Annotated[Annotated[str, StringConstraints(max_length=255)] | None, like(DocumentSpec, "filename")]
FilePath = Annotated[Annotated[str, StringConstraints(max_length=4096)] | None, like(DocumentSpec, "path")]
Text = Annotated[Annotated[str, StringConstraints(max_length=1_048_576)] | None, like(DocumentSpec, "text")]
SourceLabel = Annotated[SourceName | None, like(DocumentSpec, "source")]
WebhookUrl = Annotated[
    Url | None, like(Webhook, "url", "Address that gets one signed POST when the job has ended; http or https, publicly reachable.")
]
BudgetTokens = Annotated[
    Annotated[int, Field(ge=1, le=10**12)] | None,
    Field(description="Most tokens of language models that the job may spend, prompts and answers together; default: no limit."),
]
UploadName = Annotated[str, like(UploadCreate, "filename")]
Mime = Annotated[Annotated[str, StringConstraints(max_length=255)] | None, like(UploadCreate, "mime")]


def register(box: Toolbox) -> None:
    """Declare crawl_web, ingest_doc and create_upload."""

    async def start(spec: CrawlSpec | DocumentSpec, knowledge_base: str, webhook_url: str | None, budget_tokens: int | None) -> JobAccepted:
        webhook = None if webhook_url is None else build(Webhook, url=webhook_url)
        budget = None if budget_tokens is None else build(Budget, tokens=budget_tokens)
        request = build(IngestRequest, spec=spec, knowledge_base=knowledge_base, webhook=webhook, budget=budget)
        job = await box.shield.ingest(box.principal(), request, traceparent=traceparent(), local_caller=box.local_caller)
        return accepted(job)

    @box.tool(destructive=True, open_world=True)
    async def crawl_web(
        url: StartUrl,
        *,
        max_pages: MaxPages = 50,
        max_depth: MaxDepth = 3,
        allowed_domains: Domains = None,
        sitemaps: Sitemaps = None,
        include: Include = None,
        exclude: Exclude = None,
        render: Render = None,
        accept_crawl_delay: CrawlDelay = None,
        refresh: Refresh = False,
        remove_vanished: RemoveVanished = False,
        metadata: Metadata = None,
        webhook_url: WebhookUrl = None,
        budget_tokens: BudgetTokens = None,
        knowledge_base: Base = "default",
    ) -> JobAccepted:
        """Crawl a web site into a knowledge base, so that qdrant_find and lightrag_query can answer from it.

        Use it for a site or a part of one; for a single page or file use ingest_doc with `url`. Follows links from `url` within
        `allowed_domains`, respects robots.txt, and counts every requested page towards `max_pages`. Only public addresses are
        fetched. Returns at once with a job_id: poll get_job_status until the job has ended. Repeating the call while the job
        runs returns the same job; crawling again later updates what has changed, and with `remove_vanished` removes what is gone.
        """
        spec = build(
            CrawlSpec,
            url=url,
            max_pages=max_pages,
            max_depth=max_depth,
            allowed_domains=allowed_domains,
            sitemaps=sitemaps,
            include=include,
            exclude=exclude,
            render=render,
            accept_crawl_delay=accept_crawl_delay,
            refresh=refresh,
            remove_vanished=remove_vanished,
            metadata=metadata,
        )
        return await start(spec, knowledge_base, webhook_url, budget_tokens)

    @box.tool(destructive=True, open_world=True)
    async def ingest_doc(
        *,
        url: DocumentUrl = None,
        upload_id: UploadId = None,
        content_base64: Inline = None,
        path: FilePath = None,
        text: Text = None,
        filename: FileName = None,
        source: SourceLabel = None,
        title: Title = None,
        metadata: Metadata = None,
        webhook_url: WebhookUrl = None,
        budget_tokens: BudgetTokens = None,
        knowledge_base: Base = "default",
    ) -> JobAccepted:
        """Ingest one document (PDF, DOCX, PPTX, XLSX, HTML, Markdown, text, CSV) into a knowledge base.

        Give exactly one of: `url` (fetched by the server), `upload_id` (from create_upload, for files up to 64 MiB),
        `content_base64` with `filename` (up to 1 MiB), `text`, or `path` (a file below the server's document root; only on the
        same machine). A document of the same source is replaced. Returns at once with a job_id: poll get_job_status until the
        job has ended. For a short note that must be searchable at once, use qdrant_store.
        """
        if path is not None and not box.local_caller:
            raise DocumentRootRefused
        spec = build(
            DocumentSpec,
            url=url,
            upload_id=upload_id,
            content_base64=content_base64,
            path=path,
            text=text,
            filename=filename,
            source=source,
            title=title,
            metadata=metadata,
        )
        return await start(spec, knowledge_base, webhook_url, budget_tokens)

    @box.tool(idempotent=False)
    async def create_upload(filename: UploadName, mime: Mime = None) -> UploadView:
        """Announce a file and get a one-time `upload_url` for it.

        Use it for files too large for content_base64: PUT the file's bytes to `upload_url` (no credentials needed, one try,
        see `expires_at`), then call ingest_doc with the `upload_id`.
        """
        return await box.shield.create_upload(box.principal(), build(UploadCreate, filename=filename, mime=mime))
