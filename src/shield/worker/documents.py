"""Many documents in one job: from addresses, or from the files of a directory; each with an outcome of its own.

The documents keep their numbers however often the job is run: an address has its place in the spec, a file the number it got when it was first
met. What has an outcome is not fetched, read or converted again, so a run that is cut off anywhere costs the documents that were under way.
What is a document's own fault is its outcome at once; what a retry may mend (a site that does not answer) is left for last and ends the run
with an error, which the next run tries again, until `tries` runs have failed on it and it becomes an outcome, too.

A few documents are under way at a time. Two addresses that lead to the same one are stored once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from shield.errors import DocumentRootRefused, DocumentTypeUnsupported, PageDuplicate, ShieldError, blames_content
from shield.jobs.model import DOCUMENTS, DocumentOutcome, OutcomeStatus, Stage
from shield.knowledge.model import KnowledgeBase
from shield.settings import Settings
from shield.sources.fetch import Fetcher
from shield.sources.folders import Wanted, files_below
from shield.sources.model import Converted, Source
from shield.sources.paths import read_below
from shield.worker.context import Ending, Handler, JobContext
from shield.worker.pipeline import Tools, close, convert, fence_of, metadata_of, record, take_over
from shield.worker.tally import Tally

_TOGETHER = 4  # documents of one job under way at a time; what each stage may do at once is bounded for the whole process
_BEGUN, _DONE = 5.0, 90.0  # of the percentage: before the first document, and after the last


@dataclass(frozen=True)
class _Item:
    """A document that has no outcome yet."""

    number: int
    source: str
    url: str | None = None
    path: str | None = None


class DocumentsHandler:
    """Runs jobs whose spec is of type `documents`, and hands others on to `one`."""

    def __init__(self, tools: Tools, fetcher: Fetcher, one: Handler, settings: Settings) -> None:
        self._tools = tools
        self._fetcher = fetcher
        self._one = one
        self._root = settings.document_root
        self._files = settings.file
        self._tries = settings.jobs.max_errors

    async def run(self, context: JobContext) -> Ending:
        """Ingest what has no outcome yet."""
        if context.job.spec.get("type") != DOCUMENTS:
            return await self._one.run(context)
        base = await self._tools.bases.by_id(context.job.knowledge_base_id)
        tally = await Tally.of(self._tools.jobs, context.job.id)
        if context.stage is not Stage.GRAPH:
            if not tally.outcomes:
                await take_over(self._tools, context, tally)
            await context.progress(stage=Stage.ACQUIRE)
            items = await self._items(context, tally)
            await _Run(self, context, base, tally, total=len(tally.outcomes) + len(items)).all(items)
        return await close(self._tools, context, base, tally)

    async def _items(self, context: JobContext, tally: Tally) -> Sequence[_Item]:
        spec = context.job.spec
        if "urls" in spec:
            return [_Item(number, url, url=url) for number, url in enumerate(spec["urls"], 1) if number not in tally.outcomes]
        if self._root is None:
            raise DocumentRootRefused
        wanted = Wanted(spec.get("include") or (), spec.get("exclude") or ())
        listing = await asyncio.to_thread(files_below, self._root, spec["path"], wanted, self._files.max_files)
        known = {outcome.source for outcome in tally.outcomes.values()}
        free = (number for number in count(1) if number not in tally.outcomes)
        prefix = spec.get("source") or "file:"
        for name in listing.unreadable:
            if prefix + name not in known:
                error = DocumentRootRefused("This file or directory cannot be read, or its name is no UTF-8.")
                await record(self._tools, context, tally, _refused(_Item(next(free), prefix + name), error))
        return [_Item(next(free), prefix + name, path=name) for name in listing.files if prefix + name not in known]

    async def read(self, context: JobContext, item: _Item) -> tuple[Source, Converted]:
        """Get and convert one document."""
        if item.url is not None:
            async with self._tools.stages.fetch:
                fetched = await self._fetcher.fetch_document(item.url)
            source = Source(
                uri=fetched.final_url, kind="web", metadata=metadata_of(context), fetched_at=fetched.fetched_at, bytes=len(fetched.body)
            )
            return source, await convert(self._tools.converter, fetched)
        root, path = self._root or Path(), item.path or ""
        content, name = await asyncio.to_thread(read_below, root, path, int(self._files.max_bytes))
        converted = await self._tools.converter.convert(content, name, None)
        return Source(uri=item.source, kind="file", metadata=metadata_of(context), bytes=len(content)), converted

    @property
    def tools(self) -> Tools:
        """What it works with."""
        return self._tools

    @property
    def tries(self) -> int:
        """Runs that may fail on a document before that is its outcome."""
        return self._tries


class _Run:
    """One run over the documents that are left."""

    def __init__(self, handler: DocumentsHandler, context: JobContext, base: KnowledgeBase, tally: Tally, *, total: int) -> None:
        self._handler = handler
        self._tools = handler.tools
        self._context = context
        self._base = base
        self._tally = tally
        self._total = total
        self._stored = {outcome.source for outcome in tally.outcomes.values() if outcome.document_id is not None}
        self._later: list[ShieldError] = []

    async def all(self, items: Sequence[_Item]) -> None:
        """Give each an outcome.

        Raises:
            ShieldError: a retry may mend what kept some from one; or something that is no document's fault.
        """
        await self._show()
        left = iter(items)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_TOGETHER):
                tasks.create_task(self._lane(left))
        if self._later:
            raise self._later[0]

    async def _lane(self, left: Iterator[_Item]) -> None:
        for item in left:
            await self._context.checkpoint()
            try:
                outcome = await self._ingest(item)
            except ShieldError as error:
                if not blames_content(error):
                    raise
                if error.retryable and self._context.job.errors + 1 < self._handler.tries:
                    self._later.append(error)
                    continue
                outcome = _refused(item, error)
            await record(self._tools, self._context, self._tally, outcome)
            await self._show()

    async def _ingest(self, item: _Item) -> DocumentOutcome:
        source, converted = await self._handler.read(self._context, item)
        if source.uri in self._stored:
            raise PageDuplicate
        self._stored.add(source.uri)
        try:
            async with self._tools.stages.index:
                stored = await self._tools.library.put(self._base, source, converted, job=fence_of(self._context))
        except BaseException:  # passes on: cancelled or failed, this address has not been stored
            self._stored.discard(source.uri)
            raise
        return DocumentOutcome(
            number=item.number,
            source=source.uri,
            status=OutcomeStatus.STORED if stored.changed else OutcomeStatus.UNCHANGED,
            document_id=stored.document_id,
            revision=stored.revision,
            chunks=stored.chunks,
            bytes=source.bytes,
        )

    async def _show(self) -> None:
        done = len(self._tally.outcomes)
        percentage = _BEGUN + (_DONE - _BEGUN) * done / max(1, self._total)
        await self._context.progress(pages_found=self._total, pages_fetched=done, percentage=percentage, **self._tally.numbers())


def _refused(item: _Item, error: ShieldError) -> DocumentOutcome:
    """A directory's pictures and programs are left out, not failures; everything else is what it is."""
    left_out = isinstance(error, PageDuplicate) or (item.path is not None and isinstance(error, DocumentTypeUnsupported))
    status = OutcomeStatus.SKIPPED if left_out else OutcomeStatus.FAILED
    return DocumentOutcome(number=item.number, source=item.source, status=status, code=error.code, message=error.message)
