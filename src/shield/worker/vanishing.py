"""Removing the documents of pages that a site has no more (`remove_vanished`), at the end of a crawl that saw everything.

What is to be removed is written down first, as outcomes `page.vanished` of the job, so a run that is cut off anywhere is finished
by the next. Then the documents go the ordinary way (`knowledge.deletion`): hidden at once, waited for while the graph lets go of
them, removed and searched for, the proofs stored under the crawl's job; and each outcome becomes `deleted`, or `failed` with the
reason. A crawl that did not see everything removes nothing, and one outcome `crawl.incomplete` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.fence import JobFence
from shield.errors import CrawlIncomplete, PageVanished, TracesLeft
from shield.jobs.model import DocumentOutcome, OutcomeStatus
from shield.knowledge.deletion import Deletion
from shield.knowledge.graph.steps import steps_of_job
from shield.knowledge.model import KnowledgeBase
from shield.service.audit import record
from shield.sources.crawl import Crawler, CrawlPlan
from shield.sources.revisit import Gone
from shield.worker.context import JobContext
from shield.worker.tally import Tally

_BATCH = 50  # documents a search for what may be left of them


class Vanishing:
    """The removals of one crawl."""

    def __init__(
        self,
        engine: AsyncEngine,
        deletion: Deletion,
        context: JobContext,
        base: KnowledgeBase,
        *,
        tally: Tally,
        counted: Callable[[str], None],
    ) -> None:
        """`counted` counts an outcome by its status, for metrics."""
        self._engine = engine
        self._deletion = deletion
        self._counted = counted
        self._context = context
        self._base = base
        self._tally = tally
        self._fence = JobFence(context.job.id, context.claim.fence)

    async def plan(self, crawler: Crawler, plan: CrawlPlan) -> None:
        """Write down which documents go, or why none may."""
        told = {outcome.document_id for outcome in self._tally.outcomes.values() if outcome.document_id is not None}
        try:
            gone = await crawler.gone(self._context.claim, plan)
        except CrawlIncomplete as error:
            if not any(outcome.code == error.code for outcome in self._tally.outcomes.values()):
                await self._tell(self._next(plan.url, OutcomeStatus.SKIPPED, code=error.code, message=error.message))
            return
        for one in gone:
            if one.document_id not in told:
                await self._audit(one)
                outcome = self._next(one.source, OutcomeStatus.SKIPPED, code=PageVanished.code, message=_why(one))
                await self._tell(replace(outcome, document_id=one.document_id))

    async def remove(self) -> bool:
        """Remove what is planned; True while the graph still has to let go of some of it: call again then."""
        planned = await self._without_failures()
        if not planned:
            return False
        documents = [outcome.document_id for outcome in planned if outcome.document_id is not None]
        if await self._deletion.begin_all(self._base, documents, self._fence):
            return True
        for start in range(0, len(planned), _BATCH):
            await self._context.checkpoint()
            await self._finish(planned[start : start + _BATCH])
        return False

    async def _without_failures(self) -> list[DocumentOutcome]:
        """What is planned, less what the graph gave up letting go of, which is told."""
        planned = [outcome for outcome in self._tally.outcomes.values() if outcome.code == PageVanished.code]
        if not planned:
            return []
        failed = {step.document_id: step for step in (await steps_of_job(self._engine, self._context.job.id)).failed}
        for outcome in planned:
            step = failed.get(outcome.document_id) if outcome.document_id is not None else None
            if step is not None:
                await self._tell(replace(outcome, status=OutcomeStatus.FAILED, code=step.code, message=step.message))
        return [outcome for outcome in planned if outcome.document_id not in failed]

    async def _finish(self, planned: Sequence[DocumentOutcome]) -> None:
        documents = [outcome.document_id for outcome in planned if outcome.document_id is not None]
        proofs = await self._deletion.finish_all(self._base, documents, self._fence)
        for outcome in planned:
            proof = proofs.get(outcome.document_id) if outcome.document_id is not None else None
            if proof is not None and proof.hits:  # it is gone for readers, but not without a trace
                error = TracesLeft()
                await self._tell(replace(outcome, status=OutcomeStatus.FAILED, code=error.code, message=error.message))
            else:
                await self._tell(replace(outcome, status=OutcomeStatus.DELETED, code=None))
                self._counted(OutcomeStatus.DELETED)

    async def _tell(self, outcome: DocumentOutcome) -> None:
        await self._context.outcome(outcome)
        self._tally.add(outcome)

    def _next(self, source: str, status: OutcomeStatus, *, code: str, message: str) -> DocumentOutcome:
        return DocumentOutcome(max(self._tally.outcomes, default=0) + 1, source, status, code=code, message=message)

    async def _audit(self, gone: Gone) -> None:
        job = self._context.job
        details = {"job_id": str(job.id), "why": PageVanished.code}
        await record(self._engine, job.principal, "delete", f"{self._base.name}/{gone.document_id}", details)


def _why(gone: Gone) -> str:
    return "The site answered that it has no such page." if gone.not_found else "Nothing on the site leads to this page any more."
