"""The API server refuses, throttles, fails, or its answers get lost; watches break, go silent, or have forgotten where they were."""

from __future__ import annotations

import asyncio

from tests.kubernetes.api_proxy import Answer, Fault, Gone, Lose, Refuse, Rule, Silence
from tests.kubernetes.boundaries.stage import Case, Expected, Play, Stage

_ANSWERS: dict[str, Fault] = {
    "conflict-409": Answer(409),
    "exists-409": Answer(409, "AlreadyExists"),
    "expired-410": Answer(410),
    "throttled-429": Answer(429, retry_after=1),
    "broken-500": Answer(500),
    "answers-lost": Lose(),
    "connections-refused": Refuse(),
}


def cases() -> list[Case]:
    """One for each answer, at every verb; and the watches."""
    found = [
        Case(f"every-verb-{name}", _every_verb(fault), smoke=name in {"exists-409", "answers-lost"}) for name, fault in _ANSWERS.items()
    ]
    return [
        *found,
        Case("watches-cut", _watches_cut, alone=True),
        Case("watches-frozen", _watches_frozen, alone=True),
        Case("job-made-unseen-and-unheard", _unseen_and_unheard, alone=True, smoke=True),
        Case("watches-forgotten-410", _watches_forgotten, alone=True),
        Case("watch-silent-for-ever", _silent_for_ever, alone=True),
        Case("reads-fail-at-the-start", _reads_fail, alone=True),
        Case("lease-refused-for-a-while", _lease_refused, alone=True),
    ]


def _every_verb(fault: Fault) -> Play:
    async def play(stage: Stage) -> None:
        for method, where, body in (
            ("POST", "jobs$", ""),
            ("PATCH", "ingestjobs/.*/status", ""),
            ("PATCH", "ingestjobs/.*/status", "completionTime"),
            ("PATCH", "jobs/", '"suspend": ?true'),
            ("PATCH", "jobs/", '"suspend": ?false'),
            ("POST", "events$", ""),
            ("DELETE", "jobs/", ""),
            ("DELETE", "ingestjobs/", ""),
        ):
            stage.rule(Rule(fault, method, stage.here(where), body))
        await stage.submit("leaves", Expected(gone=True), ttlSecondsAfterFinished=4)
        await stage.submit_held("pauses", expected=Expected(pods=(2,)))
        await stage.change("pauses", suspend=True)
        await stage.until_stopped("pauses")
        await stage.change("pauses", suspend=False)
        stage.release("pauses")

    return play


async def _watches_cut(stage: Stage) -> None:
    await stage.submit_held("one")
    stage.world.door.cut()
    await stage.submit("two")
    stage.release("one")
    await asyncio.sleep(1)
    stage.world.door.cut()


async def _watches_frozen(stage: Stage) -> None:
    await stage.submit_held("one")
    if not stage.world.door.freeze():
        raise AssertionError("there was no watch to freeze")
    await stage.submit("two")
    stage.release("one")


async def _unseen_and_unheard(stage: Stage) -> None:
    """The Job is made, the answer lost, and the watch does not tell: only its name keeps it from being made twice."""
    stage.world.door.freeze("/batch/v1/jobs")
    stage.rule(Rule(Lose(), "POST", stage.here("jobs$"), times=2))
    for name in ("one", "two"):
        await stage.submit(name)


async def _watches_forgotten(stage: Stage) -> None:
    rules = [stage.rule(Rule(Gone(), "GET", f"{plural}.*watch=")) for plural in ("ingestjobs", "/jobs", "knowledgebases")]
    stage.world.door.cut()
    await stage.submit("one")
    for rule in rules:
        await stage.until_happened(rule, "the watch's 410")
    await stage.submit("two")


async def _silent_for_ever(stage: Stage) -> None:
    """Watches that never tell again end the process, which begins anew."""
    replica = stage.world.replica
    ends = len(replica.exits)
    silence = stage.rule(Rule(Silence(), "GET", "/jobs.*watch=", times=0))
    stage.world.door.freeze("/batch/v1/jobs")
    await stage.submit("one")
    await stage.until(lambda: len(replica.exits) > ends, "the operator ends by itself")
    if replica.exits[-1] != 1:
        raise AssertionError(f"the operator ended with {replica.exits[-1]}, not 1")
    stage.world.door.remove(silence)
    stage.world.door.cut()
    await replica.leads()
    await stage.submit("two")


async def _reads_fail(stage: Stage) -> None:
    """Lists and watches fail in every way while the operator starts."""
    replica = stage.world.replica
    await replica.down()
    for name in ("one", "two"):
        await stage.submit(name)
    for answer in (Answer(500), Answer(429, retry_after=1), Answer(410), Refuse()):
        stage.rule(Rule(answer, "GET", "/(ingestjobs|jobs)[?]"))
    for answer in (Answer(500), Answer(429, retry_after=1), Answer(410)):
        stage.rule(Rule(answer, "GET", "watch="))
    replica.up()
    await replica.leads()


async def _lease_refused(stage: Stage) -> None:
    """Renewals fail for less than the deadline: the leader stays."""
    replica = stage.world.replica
    ends = len(replica.exits)
    await stage.submit("one")
    for answer in (Answer(409), Answer(500), Answer(429, retry_after=1)):
        rule = stage.rule(Rule(answer, "PUT", "/leases/"))
        await stage.until_happened(rule, "a refused renewal")
    await stage.submit("two")
    await asyncio.sleep(2)
    if len(replica.exits) > ends:
        raise AssertionError(f"the leader ended with {replica.exits[-1]}")
