"""The pipeline: from a job to knowledge. One handler a kind of job, all of them safe to run again from any point.

A handler records the outcome of each page or document when it is durable, and returns how the job ends. If documents are
still on their way into the graph, the job is parked; when it comes back there is nothing left to fetch, and it ends. What a
document's own fault is becomes its outcome; what a dependency's fault is ends the run and is judged by the worker loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.fence import JobFence
from shield.errors import PageEmpty, ShieldError, TracesLeft, UnknownKnowledgeBase, blames_content
from shield.jobs.model import DocumentOutcome, OutcomeStatus, Stage
from shield.jobs.repository import JobRepository
from shield.knowledge.bases import Bases
from shield.knowledge.deletion import Deletion
from shield.knowledge.graph.steps import steps_of_job
from shield.knowledge.keeping import keep, recipe
from shield.knowledge.library import Library
from shield.knowledge.model import KnowledgeBase, Stored
from shield.sources.crawl import Crawler, CrawlPlan, Page
from shield.sources.fetch import Fetched, Fetcher
from shield.sources.files.convert import Converter
from shield.sources.model import Converted, Source
from shield.sources.revisit import Known
from shield.sources.uploads import Uploads
from shield.worker.context import Completed, Ending, Failed, JobContext, Parked
from shield.worker.stages import Stages
from shield.worker.tally import Tally
from shield.worker.vanishing import Vanishing

_HTML = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True)
class Tools:
    """What the handlers work with."""

    engine: AsyncEngine
    jobs: JobRepository
    bases: Bases
    library: Library
    deletion: Deletion
    uploads: Uploads
    converter: Converter
    counted: Callable[[str], None]
    """Counts an outcome by its status, for metrics."""
    stages: Stages = field(default_factory=Stages)
    """How many jobs may fetch, and how many documents be indexed, at once."""
    page: Callable[[str | None], None] = lambda _: None
    """Counts a crawl's page by the code of its outcome, for metrics."""


class CrawlHandler:
    """Crawls a site; each page is converted and stored as it comes, in the order of its number."""

    def __init__(self, tools: Tools, crawler: Crawler, by_principal: Mapping[str, Crawler] | None = None) -> None:
        """`by_principal`: crawlers with another egress guard, for principals that no caller can be."""
        self._tools = tools
        self._crawler = crawler
        self._by_principal = by_principal or {}

    async def run(self, context: JobContext) -> Ending:
        """Crawl, or go on where an earlier run stopped."""
        base = await self._tools.bases.by_id(context.job.knowledge_base_id)
        tally = await Tally.of(self._tools.jobs, context.job.id)
        vanishing = Vanishing(self._tools.engine, self._tools.deletion, context, base, tally=tally, counted=self._tools.counted)
        if context.stage is not Stage.GRAPH:
            if not tally.outcomes and context.job.retry_of is not None:
                await take_over(self._tools, context, tally)
            plan = _plan(context.job.spec, recipe(base, self._tools.converter.recipe, metadata_of(context)))
            await context.progress(stage=Stage.ACQUIRE)
            crawler = self._by_principal.get(context.job.principal, self._crawler)
            async with self._tools.stages.fetch:
                await crawler.run(context.claim, plan, _Pages(self._tools, context, base, tally, plan), context.checkpoint)
            if context.job.spec.get("remove_vanished"):
                await context.progress(stage=Stage.DELETE)
                await vanishing.plan(crawler, plan)
        if await vanishing.remove():
            return Parked(Stage.GRAPH)
        return await close(self._tools, context, base, tally)


class _Pages:
    """Takes the crawler's pages; see `sources.crawl.PageSink`."""

    def __init__(self, tools: Tools, context: JobContext, base: KnowledgeBase, tally: Tally, plan: CrawlPlan) -> None:
        self._tools = tools
        self._context = context
        self._base = base
        self._tally = tally
        self._plan = plan

    async def read(self, number: int, fetched: Fetched) -> Page:
        """Convert one page."""
        converted = await convert(self._tools.converter, fetched)
        if not converted.blocks:
            raise PageEmpty
        return Page(converted, converted.links, hashlib.sha256(converted.text.encode("utf-8", "replace")).hexdigest())

    async def store(self, number: int, fetched: Fetched, page: Page) -> tuple[UUID, int]:
        """Store one page."""
        source = Source(
            uri=fetched.final_url, kind="web", metadata=metadata_of(self._context), fetched_at=fetched.fetched_at, bytes=len(fetched.body)
        )
        async with self._tools.stages.index:
            stored = await self._tools.library.put(self._base, source, page.converted, job=fence_of(self._context))
        await self._stored(number, fetched, stored)
        return stored.document_id, stored.revision

    async def unchanged(self, number: int, fetched: Fetched, known: Known) -> bool:
        """Keep the document of a page that is as it was."""
        fence = fence_of(self._context)
        kept = await keep(self._tools.engine, self._base, known.document_id, known.revision, fetched_at=fetched.fetched_at, job=fence)
        if kept is None:
            return False
        await self._stored(number, fetched, kept)
        return True

    async def failed(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        """The page gave nothing."""
        await self._record(number, url, error=error, counted=counted)

    async def skipped(self, number: int, url: str, error: ShieldError, counted: bool) -> None:
        """The page was left out on purpose."""
        await self._record(number, url, error=error, counted=counted, status=OutcomeStatus.SKIPPED)

    async def counts(self, found: int, fetched: int) -> None:
        """Show how far the crawl is, of what it may and can fetch."""
        goal = max(1, min(found, self._plan.max_pages))
        await self._context.progress(pages_found=found, pages_fetched=fetched, percentage=90.0 * min(1.0, len(self._tally.outcomes) / goal))

    async def _stored(self, number: int, fetched: Fetched, stored: Stored) -> None:
        await self._record_outcome(
            DocumentOutcome(
                number=number,
                source=fetched.final_url,
                status=OutcomeStatus.STORED if stored.changed else OutcomeStatus.UNCHANGED,
                counted=True,
                document_id=stored.document_id,
                revision=stored.revision,
                chunks=stored.chunks,
                bytes=len(fetched.body),
            )
        )

    async def _record(
        self, number: int, url: str, *, error: ShieldError, counted: bool, status: OutcomeStatus = OutcomeStatus.FAILED
    ) -> None:
        await self._record_outcome(
            DocumentOutcome(number=number, source=url, status=status, counted=counted, code=error.code, message=error.message)
        )

    async def _record_outcome(self, outcome: DocumentOutcome) -> None:
        await record(self._tools, self._context, self._tally, outcome)
        self._tools.page(outcome.code)
        await self._context.progress(pages_fetched=self._tally.counted, **self._tally.numbers())


class IngestHandler:
    """Ingests one document: from an upload, or from an address."""

    def __init__(self, tools: Tools, fetcher: Fetcher) -> None:
        self._tools = tools
        self._fetcher = fetcher

    async def run(self, context: JobContext) -> Ending:
        """Acquire, convert and store; what is recorded already is not done again."""
        base = await self._tools.bases.by_id(context.job.knowledge_base_id)
        tally = await Tally.of(self._tools.jobs, context.job.id)
        if not tally.outcomes:
            await record(self._tools, context, tally, await self._ingest(context, base))
            await context.progress(percentage=90.0, **tally.numbers())
        return await close(self._tools, context, base, tally)

    async def _ingest(self, context: JobContext, base: KnowledgeBase) -> DocumentOutcome:
        spec = context.job.spec
        name = spec.get("source") or spec.get("url") or ""
        try:
            source, converted = await self._acquire(context, spec)
            await context.progress(stage=Stage.INDEX, bytes=source.bytes, percentage=60.0)
            async with self._tools.stages.index:
                stored = await self._tools.library.put(base, source, converted, title=spec.get("title"), job=fence_of(context))
        except ShieldError as error:
            if error.retryable or not blames_content(error):
                raise
            return DocumentOutcome(number=1, source=name, status=OutcomeStatus.FAILED, code=error.code, message=error.message)
        return DocumentOutcome(
            number=1,
            source=source.uri,
            status=OutcomeStatus.STORED if stored.changed else OutcomeStatus.UNCHANGED,
            document_id=stored.document_id,
            revision=stored.revision,
            chunks=stored.chunks,
            bytes=source.bytes,
        )

    async def _acquire(self, context: JobContext, spec: dict[str, Any]) -> tuple[Source, Converted]:
        metadata = spec.get("metadata") or {}
        await context.progress(stage=Stage.ACQUIRE, percentage=5.0)
        if "url" in spec:
            async with self._tools.stages.fetch:
                fetched = await self._fetcher.fetch_document(spec["url"])
            await context.progress(stage=Stage.CONVERT, bytes=len(fetched.body), percentage=30.0)
            uri = spec.get("source") or fetched.final_url
            source = Source(uri=uri, kind="web", metadata=metadata, fetched_at=fetched.fetched_at, bytes=len(fetched.body))
            return source, await convert(self._tools.converter, fetched)
        upload, content = await self._tools.uploads.read(context.job.principal, UUID(spec["upload_id"]))
        await context.progress(stage=Stage.CONVERT, bytes=len(content), percentage=30.0)
        converted = await self._tools.converter.convert(content, spec.get("filename") or upload.name, upload.mime)
        return Source(uri=spec["source"], kind="file", metadata=metadata, bytes=len(content)), converted


class DeleteHandler:
    """Deletes a document or a whole knowledge base, and proves it."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self, context: JobContext) -> Ending:
        """Clear what readers see, wait for the graph, remove all the rest, prove."""
        spec = context.job.spec
        await context.progress(stage=Stage.DELETE, percentage=10.0)
        try:
            base = await self._tools.bases.by_id(context.job.knowledge_base_id, deleting=True)
        except UnknownKnowledgeBase:
            pass  # an earlier run of this job removed it and was cut off before it could say so
        else:
            if await self._delete(base, context):
                return Parked()
        if await self._tools.deletion.left_traces(context.job.id):
            return Failed(TracesLeft())  # a job that says `completed` has left nothing, in whichever run
        name = spec.get("source") or spec["knowledge_base"]
        await record(self._tools, context, Tally(), DocumentOutcome(number=1, source=name, status=OutcomeStatus.DELETED))
        return Completed()

    async def _delete(self, base: KnowledgeBase, context: JobContext) -> bool:
        """Delete; True if the graph has to let go first, and then this is to be done again."""
        deletion, spec, fence = self._tools.deletion, context.job.spec, fence_of(context)
        if "knowledge_base" in spec:
            if waits := await deletion.begin_base(base, fence):
                return waits
            await deletion.finish_base(base, fence)
            return False
        document = UUID(spec["document_id"])
        if waits := await deletion.begin(base, document, fence):
            return waits
        await deletion.finish(base, document, fence)
        return False


async def record(tools: Tools, context: JobContext, tally: Tally, outcome: DocumentOutcome) -> None:
    """Make an outcome durable, then count it."""
    await context.outcome(outcome)
    tally.add(outcome)
    tools.counted(outcome.status)


async def take_over(tools: Tools, context: JobContext, tally: Tally) -> None:
    """Count what the retried job had finished: the crawler does not hand those pages over again."""
    if context.job.retry_of is None:
        return
    old = await Tally.of(tools.jobs, context.job.retry_of)
    for outcome in old.outcomes.values():
        if outcome.status in {OutcomeStatus.STORED, OutcomeStatus.UNCHANGED} and outcome.code is None:
            await record(tools, context, tally, replace(outcome, status=OutcomeStatus.UNCHANGED))


async def convert(converter: Converter, fetched: Fetched) -> Converted:
    """What was fetched, as blocks: HTML by the web extraction, everything else as a file."""
    kind = (fetched.content_type or "").partition(";")[0].strip().lower()
    if kind in _HTML:
        return await converter.extract_html(fetched.body, fetched.final_url, fetched.charset)
    name = unquote(urlsplit(fetched.final_url).path.rpartition("/")[2]) or "page"
    return await converter.convert(fetched.body, name, kind or None)


def _plan(spec: dict[str, Any], recipe: str) -> CrawlPlan:
    """A job's spec as the crawler takes it; jobs from before a field existed have its default."""
    return CrawlPlan(
        url=spec["url"],
        max_pages=spec["max_pages"],
        max_depth=spec["max_depth"],
        allowed_domains=tuple(spec["allowed_domains"]),
        sitemaps=tuple(spec.get("sitemaps") or ()),
        include=tuple(spec.get("include") or ()),
        exclude=tuple(spec.get("exclude") or ()),
        render=spec.get("render") or "http",
        accept_crawl_delay=spec.get("accept_crawl_delay"),
        recipe=recipe,
        refresh=bool(spec.get("refresh")),
    )


def metadata_of(context: JobContext) -> dict[str, Any]:
    """What a caller wants stored with each document."""
    return context.job.spec.get("metadata") or {}


def fence_of(context: JobContext) -> JobFence:
    """What every write of this run names."""
    return JobFence(context.job.id, context.claim.fence)


async def close(tools: Tools, context: JobContext, base: KnowledgeBase, tally: Tally) -> Ending:
    """Wait for the graph if there is something to wait for; otherwise end the job."""
    if base.graph:
        steps = await steps_of_job(tools.engine, context.job.id)
        if steps.pending:
            await context.progress(percentage=95.0)
            return Parked(Stage.GRAPH)
        for step in steps.failed:
            await _blame(context, tally, step.document_id, step.code, step.message)
    verdict = tally.verdict()
    if isinstance(verdict, ShieldError):
        return Failed(verdict)
    await _spend_upload(tools, context)
    return Completed(verdict)


async def _blame(context: JobContext, tally: Tally, document: UUID, code: str | None, message: str | None) -> None:
    """Say at a document's outcome that it is stored but not in the graph."""
    for outcome in list(tally.outcomes.values()):
        if outcome.document_id == document and outcome.code is None:
            told = replace(outcome, code=code, message=f"Stored and searchable, but not in the graph: {message}")
            await context.outcome(told)
            tally.add(told)


async def _spend_upload(tools: Tools, context: JobContext) -> None:
    """A stored document needs its upload no more; a failed job keeps it for a retry until it expires."""
    if upload := context.job.spec.get("upload_id"):
        await tools.uploads.erase(UUID(upload))
