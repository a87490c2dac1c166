"""Whose hint goes out next: read the queue, decide purely, stamp what was chosen.

The order is that of `claims.claim_next`, looked at some hints ahead: principals in turn, of one principal by priority and age, and
one of ten goes to a job that stands behind a higher priority of its principal. A hint that is out counts as a start of its
principal, for its turn and for the limit of jobs it may run at once. Hints are out for about one job a live worker, so a
newcomer waits behind few. A job with needs is hinted only while a worker that meets them has a free slot: others would take the
hint and could do nothing with it.

A stamp (`published_at`) says that a hint is out. While at least as many hints lie unread as there are stamps, all of them are
believed: every worker may be busy for hours. Otherwise a stamp is void after one lease, and when no hint is out at all, after two
looks of the relay: so a job whose hint was lost is hinted anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shield.jobs.claims import STARTABLE, STARVING_EVERY, only_chooser
from shield.jobs.model import JobId, Priority
from shield.settings import JobSettings

Needs = frozenset[str]

_MOST = 256
"""Candidates that are looked at."""
_SPARE = 8
"""More of each kind than there is room for, in case somebody has locked the first ones."""
_FOR_EVER = timedelta(days=36_500)

_SLOTS = text("""
    SELECT w.slots, w.offers, greatest(0, w.slots - (SELECT count(*) FROM jobs j WHERE j.worker = w.id AND j.status = 'processing'
                                                      AND NOT j.parked AND j.lease_until >= now())) AS free
      FROM workers w WHERE w.runner = :runner AND w.seen_at > now() - CAST(:lease AS interval)""")
_STAMPED = text("""
    SELECT principal, needs, published_at >= now() - CAST(:again AS interval) AS fresh, count(*) AS hints FROM jobs
     WHERE status IN ('pending', 'processing') AND NOT parked AND runner = :runner AND published_at IS NOT NULL
     GROUP BY principal, needs, fresh""")
# The first few of each principal, priority and set of needs; `best` is the principal's highest priority that waits.
_CANDIDATES = text(f"""
    WITH eligible AS (
      SELECT id, principal, seq, priority, needs, traceparent, CASE priority WHEN 'high' THEN 0 WHEN 'normal' THEN 1 ELSE 2 END AS rank
        FROM jobs WHERE status IN ('pending', 'processing') AND runner = :runner AND {STARTABLE}
         AND (published_at IS NULL OR published_at < now() - CAST(:again AS interval))),
    ranked AS (
      SELECT *, min(rank) OVER (PARTITION BY principal) AS best,
             row_number() OVER (PARTITION BY principal, needs, rank ORDER BY seq) AS place FROM eligible),
    principals AS (
      SELECT p.principal, (SELECT max(turn) FROM jobs j WHERE j.principal = p.principal AND turn IS NOT NULL) AS turn,
             (SELECT count(*) FROM jobs j WHERE j.principal = p.principal AND j.runner = :runner
                 AND j.status = 'processing' AND NOT j.parked AND j.lease_until >= now()) AS running
        FROM (SELECT DISTINCT principal FROM eligible) AS p)
    SELECT r.id, r.principal, r.seq, r.priority, r.needs, r.traceparent, r.rank, r.rank > r.best AS behind, p.turn, p.running
      FROM ranked r JOIN principals p USING (principal)
     WHERE r.place <= :places ORDER BY r.place, p.turn NULLS FIRST, r.rank, r.seq LIMIT :most""")  # noqa: S608 - our own names
_STAMP = text(f"""
    UPDATE jobs SET published_at = now()
     WHERE id IN (SELECT id FROM jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND {STARTABLE} FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id""")  # noqa: S608


@dataclass(frozen=True)
class Out:
    """The hints that are out."""

    total: int = 0
    unread: int = 0
    """Not yet taken by any worker."""


@dataclass(frozen=True)
class Candidate:
    """A job that could be hinted."""

    id: JobId
    principal: str
    seq: int
    priority: Priority
    rank: int
    """0 for the highest priority."""
    behind: bool
    """It stands behind a higher priority of its principal."""
    needs: Needs
    turn: int | None
    """When its principal was last served; None = never."""
    running: int
    """How many jobs its principal runs."""
    traceparent: str | None = None


@dataclass(frozen=True)
class Fleet:
    """The live workers, as far as the choice needs them."""

    workers: int = 0
    slots: int = 0
    free: Mapping[Needs, int] | None = None
    """Free slots by what their workers offer."""

    @property
    def limit(self) -> int:
        """How many hints may be out: about one a worker, and at least one, for a worker that was not heard of yet."""
        return max(1, min(self.workers, 4 * self.slots))

    def room_for(self, needs: Needs) -> int:
        """Free slots of the workers that meet `needs`."""
        return sum(free for offers, free in (self.free or {}).items() if needs <= offers)


@dataclass(frozen=True)
class Chosen:
    """What to publish; `more` if others may be waiting."""

    jobs: Sequence[Candidate]
    more: bool


async def choose(
    connection: AsyncConnection, out: Out, *, runner: str, settings: JobSettings, regular: bool, published_before: int
) -> Chosen | None:
    """Choose and stamp, in the caller's transaction; None if another process chooses at this moment.

    Args:
        connection: in a transaction; publish after its commit.
        out: the hints in Redis just now.
        runner: whose jobs.
        settings: durations and limits.
        regular: whether the last look was about one `relay` ago; between two, a job may be on its way from a hint to a claim.
        published_before: how many the caller has published in its life, for the share of the starving.
    """
    if not await only_chooser(connection, settings):
        return None
    fleet = await _fleet(connection, runner, settings)
    again = settings.lease if out.total or not regular else min(settings.lease, 2 * settings.relay)
    stamped = (await connection.execute(_STAMPED, {"runner": runner, "again": again})).all()
    if out.unread >= sum(row.hints for row in stamped):
        again = _FOR_EVER
    by_principal, by_needs = Counter[str](), Counter[Needs]()
    for row in stamped:
        if row.fresh or again is _FOR_EVER:
            by_principal[row.principal] += row.hints
            by_needs[frozenset(row.needs)] += row.hints
    room = fleet.limit - by_principal.total()
    if room <= 0:
        return Chosen((), more=True)
    rows = await connection.execute(_CANDIDATES, {"runner": runner, "again": again, "places": room + _SPARE, "most": _MOST})
    candidates = [Candidate(**{**row, "needs": frozenset(row["needs"]), "priority": Priority(row["priority"])}) for row in rows.mappings()]
    chosen: list[Candidate] = []
    while len(chosen) < room:
        picked = pick(
            candidates,
            room=room - len(chosen),
            out=by_principal,
            room_for=lambda needs: fleet.room_for(needs) - by_needs[needs],
            max_running=settings.max_running_principal,
            number=published_before + len(chosen),
        )
        if not picked:
            break
        free = set((await connection.execute(_STAMP, {"ids": [job.id for job in picked]})).scalars())
        chosen += (taken := [job for job in picked if job.id in free])
        by_principal.update(job.principal for job in taken)
        by_needs.update(job.needs for job in taken)
        candidates = [job for job in candidates if job not in picked]  # what somebody has locked is left to the next time
    return Chosen(chosen, more=len(chosen) == room)


def pick(
    candidates: Sequence[Candidate],
    *,
    room: int,
    out: Mapping[str, int],
    room_for: Callable[[Needs], int],
    max_running: int,
    number: int,
) -> list[Candidate]:
    """The next `room` of the candidates, in order.

    Args:
        candidates: what waits.
        room: how many are wanted.
        out: hints of each principal that are out.
        room_for: how many jobs with these needs the workers have slots for; asked for jobs that have any.
        max_running: jobs a principal may run at once.
        number: how many were published before; every tenth goes to the starving.
    """
    left, picked = list(candidates), list[Candidate]()
    hints, slots = Counter(out), Counter[Needs]()

    def allowed(job: Candidate) -> bool:
        return job.running + hints[job.principal] < max_running and (not job.needs or slots[job.needs] < room_for(job.needs))

    def turn(job: Candidate) -> tuple[int, int, int, int]:
        return hints[job.principal], -1 if job.turn is None else job.turn, job.rank, job.seq

    while len(picked) < room and (open_ := [job for job in left if allowed(job)]):
        behind = [job for job in open_ if job.behind] if (number + len(picked)) % STARVING_EVERY == STARVING_EVERY - 1 else []
        job = min(behind, key=lambda job: job.seq) if behind else min(open_, key=turn)
        left.remove(job)
        picked.append(job)
        hints[job.principal] += 1
        slots[job.needs] += 1
    return picked


async def _fleet(connection: AsyncConnection, runner: str, settings: JobSettings) -> Fleet:
    rows = (await connection.execute(_SLOTS, {"runner": runner, "lease": settings.lease})).all()
    free = Counter[Needs]()
    for row in rows:
        free[frozenset(row.offers)] += row.free
    return Fleet(len(rows), sum(row.slots for row in rows), free)
