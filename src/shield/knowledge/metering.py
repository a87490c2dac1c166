"""What a language model costs: the tokens of every call are counted to the job it is for, and a job's budget is kept.

A call for a job with a budget first reserves the most it may cost: its prompt by our estimate, and the longest answer allowed.
If that does not fit beside what the job has spent, the call does not start (`job.budget_exceeded`); if only calls that are still
out stand in the way, it waits for them. At its end a call's reservation gives way to the endpoint's count, in one transaction. A
reservation lapses once its call must have ended, so a process that died binds nothing for long. All of it is SQL on the job's
row, so any number of workers keep one budget.

Limits: the estimate is ours (a token for every three bytes begun of a word, for every mark and line end: more than prose and code
take), so text that is denser than that may pass the budget by the difference, once for each call that is out. A call without an answer counts nothing,
although its endpoint may bill it. A call for no job (a question, a note) is counted in the metrics only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import BudgetExceeded, DatabaseUnavailable, DependencyThrottled, ShieldError
from shield.knowledge.llm import SERVICE, Completion, Llm
from shield.resilience import retry
from shield.settings import LlmSettings

log = structlog.get_logger(__name__)

_PIECE = re.compile(r"\w+|[^\w\s]|\n")
_BYTES_A_TOKEN = 3
_TURN = 16  # tokens that the form of a message costs beside its text
_SLACK = timedelta(seconds=60)  # between a call's own limit and the end of its reservation: a busy machine, a slow settlement
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds between two looks whether calls that are out have left room

_BUDGET = sa.text("SELECT budget_tokens FROM jobs WHERE id = :job")
_ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('shield.budget:' || CAST(:job AS text), 0))")
_LAPSE = sa.text("DELETE FROM token_reservations WHERE job_id = :job AND expires_at <= clock_timestamp()")
_STANDING = sa.text("""
    SELECT tokens, budget_tokens, (SELECT coalesce(sum(r.tokens), 0) FROM token_reservations r WHERE r.job_id = jobs.id) AS reserved
      FROM jobs WHERE id = :job""")
_RESERVE = sa.text("""
    INSERT INTO token_reservations (job_id, tokens, expires_at) VALUES (:job, :tokens, clock_timestamp() + CAST(:lasts AS interval))
    RETURNING id""")
_RELEASE = sa.text("DELETE FROM token_reservations WHERE id = :id")
_SPEND = sa.text("UPDATE jobs SET tokens = tokens + :tokens WHERE id = :job")


class Purpose(StrEnum):
    """What a call is for: a label of the metrics."""

    EXTRACT = "extract"
    SUMMARIZE = "summarize"
    ANSWER = "answer"


Counted = Callable[[str, int, int], None]
"""Takes a purpose and the tokens in and out of one call."""


@dataclass(frozen=True)
class _Held:
    """Tokens set aside for one call."""

    job_id: UUID
    reservation: UUID | None
    """None: the job has no budget."""


class Ledger:
    """The jobs' accounts in PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def reserve(self, job_id: UUID, tokens: int, limit: timedelta) -> _Held:
        """Set `tokens` aside for a call that lasts `limit` at most; waits that long for calls that are out.

        Raises:
            BudgetExceeded: the job's budget has no room for them.
            DependencyThrottled: calls that are out held the budget all the time.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        pause, end = _FIRST_PAUSE, asyncio.get_running_loop().time() + limit.total_seconds()
        while (held := await self._try(job_id, tokens, limit)) is None:
            if asyncio.get_running_loop().time() + pause > end:
                raise DependencyThrottled(
                    "The job's budget is held by calls that are still out.", retry_after=_LONGEST_PAUSE, service=SERVICE
                )
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        return held

    async def settle(self, held: _Held, tokens: int) -> None:
        """Write what a call cost in the place of its reservation.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer, asked several times; the reservation lapses by itself.
        """
        if held.reservation is None and not tokens:
            return

        async def write() -> None:
            with database_errors():
                async with self._engine.begin() as connection:
                    if held.reservation is not None:
                        await connection.execute(_RELEASE, {"id": held.reservation})
                    if tokens:
                        await connection.execute(_SPEND, {"job": held.job_id, "tokens": tokens})

        await retry(write, attempts=4, base=0.1, cap=1.0)

    async def _try(self, job_id: UUID, tokens: int, limit: timedelta) -> _Held | None:
        """What was set aside, or None while other calls are in the way."""
        with database_errors():
            async with self._engine.begin() as connection:
                if (await connection.execute(_BUDGET, {"job": job_id})).scalar() is None:
                    return _Held(job_id, None)
                await connection.execute(_ONE_AT_A_TIME, {"job": job_id})
                await connection.execute(_LAPSE, {"job": job_id})
                standing = (await connection.execute(_STANDING, {"job": job_id})).one()
                if standing.tokens + tokens > standing.budget_tokens:
                    raise BudgetExceeded(
                        f"The job has spent {standing.tokens} of {standing.budget_tokens} tokens; the next call may cost {tokens}."
                    )
                if standing.tokens + standing.reserved + tokens > standing.budget_tokens:
                    return None
                made = await connection.execute(_RESERVE, {"job": job_id, "tokens": tokens, "lasts": limit + _SLACK})
                return _Held(job_id, made.scalar_one())


class MeteredLlm:
    """A language model whose calls are counted; itself an `Llm`, by default for questions."""

    def __init__(
        self,
        llm: Llm,
        ledger: Ledger,
        settings: LlmSettings,
        counted: Counted,
        *,
        purpose: Purpose = Purpose.ANSWER,
        job_id: UUID | None = None,
    ) -> None:
        self._llm, self._ledger, self._settings, self._counted = llm, ledger, settings, counted
        self._purpose, self._job_id = purpose, job_id

    @property
    def name(self) -> str:
        """Provider and model."""
        return self._llm.name

    def charged(self, purpose: Purpose, job_id: UUID | None) -> MeteredLlm:
        """The same model on the account of a job (None: of nobody)."""
        return MeteredLlm(self._llm, self._ledger, self._settings, self._counted, purpose=purpose, job_id=job_id)

    async def complete(self, prompt: str, *, system: str | None = None, json: bool = False, timeout: timedelta | None = None) -> Completion:  # noqa: ASYNC109  the port's argument
        """The model's answer; the port's docstring lists the errors.

        Raises:
            BudgetExceeded: the job's budget has no room for this call; it was not made.
        """
        asked = estimate_tokens(prompt) + (estimate_tokens(system) if system else 0)
        limit = timeout or self._settings.timeout
        held = await self._ledger.reserve(self._job_id, asked + self._settings.max_tokens, limit) if self._job_id is not None else None
        spent = (0, 0)
        try:
            completion = await self._llm.complete(prompt, system=system, json=json, timeout=limit)
            spent = (completion.tokens_in or asked, completion.tokens_out or estimate_tokens(completion.text))
        except ShieldError as error:
            spent = (int(error.details.get("tokens_in", 0)), int(error.details.get("tokens_out", 0)))  # an answer that was of no use
            raise
        finally:
            if held is not None:
                await self._settle(held, sum(spent))
            self._counted(self._purpose, *spent)
        return completion

    async def close(self) -> None:
        """Let go of the model."""
        await self._llm.close()

    async def _settle(self, held: _Held, tokens: int) -> None:
        try:
            await self._ledger.settle(held, tokens)
        except DatabaseUnavailable:
            log.warning(
                "metering.lost", tokens=tokens
            )  # the answer is worth more than its count; the next write meets the database's absence


def charged(llm: Llm, purpose: Purpose, job_id: UUID | None) -> Llm:
    """`llm` on the account of a job, if it is metered."""
    return llm.charged(purpose, job_id) if isinstance(llm, MeteredLlm) else llm


def estimate_tokens(text: str) -> int:
    """Tokens of a message, rather too many than too few."""
    return _TURN + sum(1 + (len(piece.encode("utf-8", "replace")) - 1) // _BYTES_A_TOKEN for piece in _PIECE.findall(text))
