"""Jobs on a knowledge base's index: `reindex` moves it to another embedding model, `rebuild` restores its vectors from PostgreSQL.

What is left to do stands in `missing_points`, so a run that was cut off goes on where it stopped, and nothing is done twice but the last
step. Both end well beside ingest, searches and each other.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.fence import JobFence
from shield.errors import DependencyRejected, ReindexDiffers, ReindexIncomplete, ReindexNotPossible
from shield.jobs.model import DocumentOutcome, OutcomeStatus, Stage
from shield.knowledge.bases import Bases
from shield.knowledge.collections import Collection
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.filling import Filler, Step
from shield.knowledge.golden import Comparison, GoldenQuestions, Question
from shield.knowledge.model import KnowledgeBase
from shield.knowledge.rebuild import Rebuilder
from shield.knowledge.reindex import Reindexer
from shield.knowledge.search import Searcher
from shield.knowledge.sweep import Sweeper
from shield.knowledge.vectors.port import SpaceKey, VectorIndex
from shield.settings import LibrarySettings, Settings
from shield.worker.context import Completed, Ending, Failed, JobContext

_PASSES = 3  # checks of a rebuild for what was lost while it ran


@dataclass(frozen=True)
class IndexTools:
    """What the handlers work with."""

    bases: Bases
    reindexer: Reindexer
    rebuilder: Rebuilder
    filler: Filler
    questions: GoldenQuestions
    sweeper: Sweeper
    settings: LibrarySettings


def index_tools(engine: AsyncEngine, vectors: VectorIndex, embedders: CachedEmbedder, bases: Bases, settings: Settings) -> IndexTools:
    """The tools on the components of a process."""
    return IndexTools(
        bases=bases,
        reindexer=Reindexer(engine, settings.library),
        rebuilder=Rebuilder(engine, vectors),
        filler=Filler(engine, vectors, embedders),
        questions=GoldenQuestions(engine, Searcher(engine, vectors, embedders, settings.query, settings.library)),
        sweeper=Sweeper(engine, vectors, embedders, settings.library),
        settings=settings.library,
    )


class ReindexHandler:
    """Builds a collection for another model, compares it, and lets the base answer from it if it compares well."""

    def __init__(self, tools: IndexTools) -> None:
        self._tools = tools

    async def run(self, context: JobContext) -> Ending:
        """Reindex, or go on where an earlier run stopped."""
        spec, fence = context.job.spec, _fence(context)
        base = await self._tools.bases.by_id(context.job.knowledge_base_id)
        await context.progress(stage=Stage.INDEX)
        collection = await self._tools.reindexer.begin(base, spec["model"], spec["dim"], fence)
        if collection is None:
            return Completed()  # an earlier run flipped it and was cut off before it could say so
        if rejected := await _fill(self._tools.filler, context, collection, share=90.0):
            await _blame(context, rejected)
            return Failed(ReindexIncomplete(f"The model refuses the text of {len(rejected)} documents; the outcomes name them."))
        comparison = await self._compare(context, base, collection)
        await self._tools.reindexer.ready(collection, comparison.report(), fence)
        if not spec["flip"]:
            return Completed()
        if reason := self._worse(comparison, spec["min_overlap"]):
            await _tell(context, collection, ReindexDiffers(reason))
            return Completed("partial")
        await self._flip(context, base, collection)
        return Completed()

    async def _compare(self, context: JobContext, base: KnowledgeBase, collection: Collection) -> Comparison:
        golden = self._tools.questions
        given = [Question(text) for text in context.job.spec.get("questions") or ()]
        questions = given or await golden.take(base, self._tools.settings.golden_questions)
        live = SpaceKey(base.id, base.embedding_model, base.embedding_dim)
        return await golden.compare(base, live, collection.space, questions, context.checkpoint)

    def _worse(self, comparison: Comparison, min_overlap: float | None) -> str | None:
        """Why the new collection does not go live by itself."""
        if comparison.found_new < comparison.found_old - self._tools.settings.found_tolerance:
            return f"Of the golden questions {comparison.found_new:.0%} find their answer, {comparison.found_old:.0%} before."
        if min_overlap is not None and comparison.overlap < min_overlap:
            return f"Both collections share {comparison.overlap:.0%} of the ten best passages, less than {min_overlap:.0%}."
        return None

    async def _flip(self, context: JobContext, base: KnowledgeBase, collection: Collection) -> None:
        """Flip as soon as the collection lacks nothing; documents stored meanwhile may have left a note."""
        while True:
            try:
                await self._tools.reindexer.flip(base, _fence(context))
            except ReindexIncomplete:
                if await _fill(self._tools.filler, context, collection, share=95.0):
                    raise
            else:
                return


class RebuildHandler:
    """Writes all points of a base anew."""

    def __init__(self, tools: IndexTools) -> None:
        self._tools = tools

    async def run(self, context: JobContext) -> Ending:
        """Rebuild, or go on where an earlier run stopped."""
        tools = self._tools
        base = await tools.bases.by_id(context.job.knowledge_base_id)
        await context.progress(stage=Stage.INDEX)
        live, *others = await tools.rebuilder.begin(base, _fence(context), fresh=bool(context.job.spec.get("fresh")))
        rejected = await _fill(tools.filler, context, live, share=80.0)
        for _ in range(_PASSES):  # a document that went live while the index was being lost
            if await tools.rebuilder.note_incomplete(base) <= len(rejected):
                break
            rejected = await _fill(tools.filler, context, live, share=85.0)
        for other in others:
            with contextlib.suppress(ReindexNotPossible):  # it was given up meanwhile
                rejected |= await _fill(tools.filler, context, other, share=90.0)
        await tools.rebuilder.prune(base)
        await tools.sweeper.reconcile(base)
        await _blame(context, rejected)
        if rejected and not context.latest.documents:
            return Failed(ReindexIncomplete(f"The model refuses the text of {len(rejected)} documents; the outcomes name them."))
        return Completed("partial" if rejected else "complete")


async def _fill(filler: Filler, context: JobContext, collection: Collection, *, share: float) -> dict[UUID, DependencyRejected]:
    """Fill a collection and show how far it is; `share` is the percentage when it is full."""
    left = await filler.missing(collection)
    start, total = context.latest, max(left, 1)
    done, chunks = 0, 0

    async def report(step: Step) -> None:
        nonlocal done, chunks
        done, chunks = done + step.documents, chunks + step.chunks
        reached = start.percentage + (share - start.percentage) * min(1.0, done / total)
        await context.progress(documents=start.documents + done, chunks=start.chunks + chunks, percentage=reached)
        await context.checkpoint()

    return await filler.fill(collection, report)


async def _blame(context: JobContext, rejected: dict[UUID, DependencyRejected]) -> None:
    for number, (document, error) in enumerate(sorted(rejected.items(), key=lambda item: item[0]), 2):
        await context.outcome(
            DocumentOutcome(
                number=number,
                source=str(document),
                status=OutcomeStatus.FAILED,
                document_id=document,
                code=error.code,
                message=error.message,
            )
        )
    if rejected:
        await context.progress(failed=len(rejected))


async def _tell(context: JobContext, collection: Collection, error: ReindexDiffers) -> None:
    source = f"{collection.space.model}:{collection.space.dim}"
    await context.outcome(DocumentOutcome(number=1, source=source, status=OutcomeStatus.SKIPPED, code=error.code, message=error.message))


def _fence(context: JobContext) -> JobFence:
    return JobFence(context.job.id, context.claim.fence)
