"""Whose hint goes out next, decided purely."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shield.jobs.choice import Candidate, Fleet, Needs, pick
from shield.jobs.model import JobId, Priority

NONE: Needs = frozenset()
BROWSER: Needs = frozenset({"browser"})
RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


def a_job(
    seq: int, principal: str = "ada", priority: Priority = Priority.NORMAL, needs: Needs = NONE, turn: int | None = None, running: int = 0
) -> Candidate:
    return Candidate(JobId(UUID(int=seq)), principal, seq, priority, RANKS[priority], False, needs, turn, running)


def behind(seq: int, principal: str = "ada") -> Candidate:
    return Candidate(JobId(UUID(int=seq)), principal, seq, Priority.LOW, 2, True, NONE, None, 0)


def seqs(*jobs: Candidate, room: int = 10, **changes: object) -> list[int]:
    values: dict[str, object] = {"out": {}, "room_for": lambda _: 0, "max_running": 10, "number": 0}
    return [job.seq for job in pick(jobs, room=room, **{**values, **changes})]  # type: ignore[arg-type]


def test_principals_take_turns_whoever_was_served_longest_ago_first() -> None:
    jobs = [a_job(1, "ada", turn=9), a_job(2, "ada", turn=9), a_job(3, "ada", turn=9), a_job(4, "bob", turn=5), a_job(5, "eve")]
    assert seqs(*jobs) == [5, 4, 1, 2, 3]
    assert seqs(*jobs, room=2) == [5, 4]


def test_a_hint_that_is_out_counts_as_a_turn() -> None:
    assert seqs(a_job(1, "ada"), a_job(2, "bob", turn=7), out={"ada": 3}) == [2, 1]


def test_of_one_principal_priority_goes_before_age() -> None:
    assert seqs(a_job(1, priority=Priority.LOW), a_job(2), a_job(3, priority=Priority.HIGH)) == [3, 2, 1]


def test_every_tenth_start_goes_to_the_oldest_that_stands_behind() -> None:
    jobs = [*(a_job(seq) for seq in range(10, 20)), behind(2), behind(1, "bob")]
    assert seqs(*jobs, number=9, room=1) == [1]
    assert seqs(*jobs, number=0, room=1) != [1]
    assert seqs(*[a_job(seq) for seq in range(10, 30)], behind(1), room=20, max_running=99)[9] == 1


def test_a_principal_runs_no_more_than_it_may_hints_included() -> None:
    assert seqs(a_job(1, running=2), a_job(2, running=2), a_job(3, running=2), out={"ada": 1}, max_running=4) == [1]


def test_a_job_with_needs_is_hinted_only_while_a_slot_meets_them() -> None:
    fleet = Fleet(workers=3, slots=6, free={NONE: 4, BROWSER: 1, frozenset({"browser", "ocr"}): 1})
    assert [fleet.room_for(needs) for needs in (BROWSER, frozenset({"ocr"}), frozenset({"gpu"}))] == [2, 1, 0]
    needy = [a_job(seq, needs=BROWSER) for seq in (1, 2, 3)]
    assert seqs(*needy, a_job(4), room_for=fleet.room_for) == [1, 2, 4]


def test_about_one_hint_is_out_a_worker_and_at_least_one() -> None:
    assert [Fleet().limit, Fleet(workers=4, slots=8).limit, Fleet(workers=3, slots=0).limit] == [1, 4, 1]


JOBS = st.builds(
    a_job,
    seq=st.integers(1, 10_000),
    principal=st.sampled_from(["ada", "bob", "eve"]),
    priority=st.sampled_from(Priority),
    needs=st.sampled_from([NONE, BROWSER]),
    turn=st.one_of(st.none(), st.integers(0, 50)),
)


@given(
    jobs=st.lists(JOBS, max_size=40, unique_by=lambda job: job.seq),
    room=st.integers(0, 12),
    out=st.dictionaries(st.sampled_from(["ada", "bob"]), st.integers(0, 5)),
    slots=st.integers(0, 3),
    max_running=st.integers(1, 6),
    number=st.integers(0, 99),
)
def test_whatever_waits_no_bound_is_passed_and_nobody_who_may_run_is_passed_over(
    jobs: list[Candidate], room: int, out: dict[str, int], slots: int, max_running: int, number: int
) -> None:
    picked = pick(jobs, room=room, out=out, room_for=lambda _: slots, max_running=max_running, number=number)
    hints = Counter(out) + Counter(job.principal for job in picked)
    assert len({job.id for job in picked}) == len(picked) <= room
    assert all(hints[job.principal] <= max_running for job in picked)
    assert sum(1 for job in picked if job.needs) <= slots
    for job in set(jobs) - set(picked):
        waits_for_a_slot = job.needs and sum(1 for other in picked if other.needs) >= slots
        assert len(picked) == room or hints[job.principal] >= max_running or waits_for_a_slot
