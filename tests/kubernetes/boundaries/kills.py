"""The operator is killed before and after everything that `decide()` can tell it to do.

The cases are made from the enum `Do`: an action without a scenario here has no case, and `cases()` refuses to go on without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shield_operator.ingestjobs.decide import Do
from tests.kubernetes.api_proxy import KillAfter, KillBefore, Rule
from tests.kubernetes.boundaries.stage import Case, Expected, Stage, failed

Kill = KillBefore | KillAfter
Scenario = Callable[[Stage, Kill], Awaitable[None]]

TWO = ("one", "two")


async def _create_job(stage: Stage, kill: Kill) -> None:
    stage.rule(Rule(kill, "POST", stage.here("jobs$")))
    for name in TWO:
        await stage.submit(name)


async def _pause(stage: Stage, rule: Rule) -> None:
    """Suspended in the middle and resumed, with a kill on the way."""
    await stage.submit_held("one", expected=Expected(pods=(2,)))
    stage.rule(rule)
    await stage.change("one", suspend=True)
    await stage.until_condition("one", "Suspended", "True", "Suspended")
    await stage.until_stopped("one")
    await stage.change("one", suspend=False)
    await stage.until_happened(rule, "the kill")
    stage.release("one")


async def _suspend_job(stage: Stage, kill: Kill) -> None:
    await _pause(stage, Rule(kill, "PATCH", stage.here("jobs/"), r'"suspend": ?true'))


async def _resume_job(stage: Stage, kill: Kill) -> None:
    await _pause(stage, Rule(kill, "PATCH", stage.here("jobs/"), r'"suspend": ?false'))


async def _set_deadline(stage: Stage, kill: Kill) -> None:
    await stage.submit_held(*TWO)
    stage.rule(Rule(kill, "PATCH", stage.here("jobs/"), "activeDeadlineSeconds"))
    for name in TWO:
        await stage.change(name, activeDeadlineSeconds=7200)
    for name in TWO:
        await stage.until_job(name, lambda job: job["spec"].get("activeDeadlineSeconds") == 7200, "its new deadline")
    stage.release(*TWO)


async def _write_status(stage: Stage, kill: Kill) -> None:
    stage.rule(Rule(kill, "PATCH", stage.here("ingestjobs/.*/status")))  # the first one
    stage.rule(Rule(kill, "PATCH", stage.here("ingestjobs/.*/status"), "completionTime"))  # a terminal one
    for name in TWO:
        await stage.submit(name)


async def _emit_event(stage: Stage, kill: Kill) -> None:
    stage.rule(Rule(kill, "POST", stage.here("events$"), '"Started"'))
    stage.rule(Rule(kill, "POST", stage.here("events$"), '"Succeeded"'))
    for name in TWO:
        await stage.submit(name)


async def _cancel_row(stage: Stage, kill: Kill) -> None:
    uids = await stage.submit_held(*TWO, expected=failed("DeadlineExceeded"))
    stage.rule(Rule(kill, "POST", "^/ingest-jobs/cancel", "|".join(uids)), stage.world.orchestrator)
    for name in TWO:
        await stage.change(name, activeDeadlineSeconds=1)


async def _delete_job(stage: Stage, kill: Kill) -> None:
    stage.rule(Rule(kill, "DELETE", stage.here("jobs/")))
    for name in TWO:
        await stage.submit(name)


async def _delete_self(stage: Stage, kill: Kill) -> None:
    stage.rule(Rule(kill, "DELETE", stage.here("ingestjobs/")))
    for name in TWO:
        await stage.submit(name, Expected(gone=True), ttlSecondsAfterFinished=0)


SCENARIOS: dict[Do, Scenario] = {
    Do.CREATE_JOB: _create_job,
    Do.SUSPEND_JOB: _suspend_job,
    Do.RESUME_JOB: _resume_job,
    Do.SET_DEADLINE: _set_deadline,
    Do.WRITE_STATUS: _write_status,
    Do.EMIT_EVENT: _emit_event,
    Do.CANCEL_ROW: _cancel_row,
    Do.DELETE_JOB: _delete_job,
    Do.DELETE_SELF: _delete_self,
}
_SMOKE = {"create-job-killed-after", "write-status-killed-before", "cancel-row-killed-before"}


def cases() -> list[Case]:
    """Two for each action.

    Raises:
        AssertionError: an action has no scenario.
    """
    if missing := [do.name for do in Do if do not in SCENARIOS]:
        raise AssertionError(f"decide() can emit {missing}, and no case kills the operator there")
    found = []
    for do, scenario in SCENARIOS.items():
        for when, kill in (("before", KillBefore()), ("after", KillAfter())):
            name = f"{do.value.replace('_', '-')}-killed-{when}"
            found.append(Case(name, _play(scenario, kill), smoke=name in _SMOKE))
    return found


def _play(scenario: Scenario, kill: Kill) -> Callable[[Stage], Awaitable[None]]:
    async def play(stage: Stage) -> None:
        await scenario(stage, kill)

    return play
