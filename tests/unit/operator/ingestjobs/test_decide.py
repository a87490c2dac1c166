"""What follows from what is: a table for every condition and reason, and properties that hold of all views."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield_operator.api.ingestjob import ConditionType, IngestJobStatus
from shield_operator.api.meta import find
from shield_operator.ingestjobs.decide import Do, Limits, Plan, decide
from shield_operator.ingestjobs.status import EventReason
from shield_operator.ingestjobs.view import Base, Claim, Pod, View
from tests.unit.operator.ingestjobs.builders import NOW, a_child, a_row, a_subject, a_view, ago, finished, text

LIMITS = Limits()
CLAIM = {"source": {"documents": {"persistentVolumeClaim": {"claimName": "papers"}}}}
QUEUE = {"kueue.x-k8s.io/queue-name": "team"}


def plan(view: View, seconds: float = 0) -> Plan:
    return decide(view, NOW + timedelta(seconds=seconds), LIMITS)


def dos(decided: Plan) -> list[Do]:
    return [action.do for action in decided.actions]


def written(decided: Plan) -> IngestJobStatus:
    status = next(action.status for action in decided.actions if action.do is Do.WRITE_STATUS)
    assert status is not None
    return status


def events(decided: Plan) -> list[EventReason]:
    return [action.event.reason for action in decided.actions if action.event is not None]


def says(status: IngestJobStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (str(condition.status), condition.reason) for condition in status.conditions}


def after(view: View, seconds: float = 0) -> View:
    """The view once the plan's status was written, and its Job made."""
    decided = plan(view, seconds)
    subject = replace(view.subject, status=written(decided)) if decided.does(Do.WRITE_STATUS) else view.subject
    held = {"suspended": True, "queued": True} if view.subject.queued else {}
    made = [a_child(action.number, started=None, created=NOW, **held) for action in decided.actions if action.do is Do.CREATE_JOB]
    return replace(view, subject=subject, children=(*view.children, *made))


class TestBeginning:
    def test_a_new_one_gets_its_job_then_one_status_then_an_event(self) -> None:
        decided = plan(a_view())
        assert dos(decided) == [Do.CREATE_JOB, Do.WRITE_STATUS, Do.EMIT_EVENT]
        assert decided.actions[0].number == 1
        status = written(decided)
        assert says(status) == {
            "Accepted": ("True", "Accepted"), "Suspended": ("False", "NotSuspended"), "Complete": ("False", "Pending"), "Failed": ("False", "NotFailed"),
        }  # fmt: skip
        assert (status.job_name, status.attempts, status.start_time, status.observed_generation) == ("crawl-1", 1, NOW, 1)
        assert events(decided) == [EventReason.STARTED]
        assert decided.after == 600

    def test_the_second_look_changes_nothing(self) -> None:
        assert plan(after(a_view())).actions == ()

    def test_one_whose_job_was_made_before_a_crash_gets_its_status_and_no_second_job(self) -> None:
        decided = plan(a_view(children=(a_child(),)))
        assert dos(decided) == [Do.WRITE_STATUS, Do.EMIT_EVENT]
        assert (written(decided).job_name, events(decided)) == ("crawl-1", [EventReason.STARTED])

    @pytest.mark.parametrize(
        ("parts", "reason"),
        [
            ({"base": Base.NOT_FOUND}, "KnowledgeBaseNotFound"),
            ({"base": Base.NOT_READY}, "KnowledgeBaseNotReady"),
            ({"subject": a_subject(**CLAIM), "claim": Claim.NOT_FOUND}, "ClaimNotFound"),
            ({"subject": a_subject(**CLAIM), "claim": Claim.NOT_LABELLED}, "ClaimNotLabelled"),
        ],
    )
    def test_what_may_pass_is_waited_for_and_named(self, parts: dict[str, Any], reason: str) -> None:
        view = a_view(**parts)
        decided = plan(view)
        assert dos(decided) == [Do.WRITE_STATUS]
        assert says(written(decided))["Accepted"] == ("False", reason)
        assert says(written(decided))["Complete"] == ("False", reason)
        assert decided.after == LIMITS.recheck
        late = plan(after(view), 601)
        assert says(written(late))["Failed"] == ("True", "PendingDeadlineExceeded")
        assert not late.does(Do.CREATE_JOB)
        assert not late.does(Do.CANCEL_ROW)

    def test_what_was_waited_for_came(self) -> None:
        waiting = after(a_view(base=Base.NOT_FOUND))
        decided = plan(replace(waiting, base=Base.READY), 30)
        assert decided.does(Do.CREATE_JOB)
        assert says(written(decided))["Accepted"] == ("True", "Accepted")

    @pytest.mark.parametrize(
        ("parts", "reason"),
        [
            ({"subject": a_subject(source={"web": {"url": "ftp://example.com/"}})}, "InvalidSpec"),
            ({"subject": a_subject(source={})}, "InvalidSpec"),
            ({"unacceptable": "spec.template: Invalid value"}, "InvalidSpec"),
            ({"excess": "cpu is 400"}, "ResourcesAboveMaximum"),
        ],
    )
    def test_what_can_never_be_run_fails_at_once(self, parts: dict[str, Any], reason: str) -> None:
        decided = plan(a_view(**parts))
        assert dos(decided) == [Do.WRITE_STATUS, Do.EMIT_EVENT]
        status = says(written(decided))
        assert (status["Accepted"], status["Failed"], status["Complete"][0]) == (("False", reason), ("True", reason), "False")
        assert events(decided) == [EventReason.FAILED]

    def test_a_strangers_job_of_that_name_is_a_conflict(self) -> None:
        decided = plan(a_view(name_taken="crawl-1"))
        assert says(written(decided))["Failed"] == ("True", "JobNameConflict")
        assert not decided.does(Do.DELETE_JOB)

    def test_a_full_namespace_and_a_refusal_are_waited_out(self) -> None:
        for parts in ({"place_free": False}, {"refused": "exceeded quota"}):
            decided = plan(a_view(**parts))
            assert dos(decided) == [Do.WRITE_STATUS]
            assert says(written(decided))["Accepted"] == ("True", "Accepted")
            assert says(written(decided))["Complete"] == ("False", "Pending")
            assert decided.after == LIMITS.recheck

    def test_somebody_elses_is_left_alone(self) -> None:
        assert plan(a_view(a_subject(managedBy="kueue.x-k8s.io/multikueue"), children=(a_child(finish=finished()),))) == Plan()

    def test_one_that_is_being_deleted_only_ends_its_row(self) -> None:
        assert dos(plan(a_view(a_subject(meta={"deletionTimestamp": text(NOW)}), children=(a_child(),)))) == [Do.CANCEL_ROW]


class TestRunning:
    def test_a_pod_that_runs_is_told_once(self) -> None:
        waiting = after(a_view())
        runs = replace(waiting, children=(a_child(ready=1),))
        decided = plan(runs)
        assert (says(written(decided))["Complete"], events(decided)) == (("False", "Running"), [EventReason.RUNNING])
        assert plan(after(runs)).actions == ()

    def test_no_pod_in_time_fails_stops_the_job_and_ends_the_row(self) -> None:
        waiting = replace(after(a_view()), children=(a_child(started=NOW),), pod=Pod(waiting="ImagePullBackOff"))
        assert plan(waiting, 599).after == pytest.approx(1)
        decided = plan(waiting, 600)
        assert dos(decided) == [Do.WRITE_STATUS, Do.EMIT_EVENT, Do.CANCEL_ROW, Do.DELETE_JOB]
        status = written(decided)
        assert says(status)["Failed"] == ("True", "PendingDeadlineExceeded")
        failed = find(status.conditions, ConditionType.FAILED)
        assert failed is not None
        assert "ImagePullBackOff" in failed.message

    def test_a_pod_that_ran_and_is_being_replaced_is_under_no_pending_deadline(self) -> None:
        ran = after(replace(after(a_view()), children=(a_child(ready=1),)))
        decided = plan(replace(ran, children=(a_child(ready=0),)), 3000)
        assert decided.actions == ()

    def test_a_changed_deadline_is_passed_on(self) -> None:
        started = after(a_view())
        decided = plan(replace(started, children=(a_child(ready=1, deadline=60),)))
        assert dos(decided)[0] is Do.SET_DEADLINE
        assert decided.actions[0].seconds == 3600

    def test_a_job_that_was_deleted_is_followed_by_the_next(self) -> None:
        gone = replace(after(a_view()), children=())
        decided = plan(gone)
        assert (dos(decided)[0], decided.actions[0].number) == (Do.CREATE_JOB, 2)
        assert (written(decided).attempts, events(decided)) == (2, [])

    @pytest.mark.parametrize(
        ("pods", "attempts"),
        [({}, 1), ({"active": 1}, 1), ({"failed": 1}, 1), ({"failed": 1, "active": 1}, 2), ({"failed": 2, "succeeded": 1}, 3)],
    )
    def test_attempts_are_pods_that_were_started(self, pods: dict[str, Any], attempts: int) -> None:
        started = after(a_view())
        written_now = after(replace(started, children=(replace(a_child(ready=1), **pods),)))
        assert written_now.subject.status.attempts == attempts

    def test_a_job_that_is_being_deleted_is_waited_for(self) -> None:
        assert dos(plan(replace(after(a_view()), children=(a_child(deleting=True),)))) == []

    def test_deleting_its_jobs_for_ever_ends_it(self) -> None:
        status = {**after(a_view()).subject.status.to_json(), "jobName": "crawl-20"}
        decided = plan(a_view(a_subject(status=status)))
        assert says(written(decided))["Failed"] == ("True", "RetriesExhausted")
        assert decided.does(Do.CANCEL_ROW)

    def test_a_row_that_ended_needs_no_further_job(self) -> None:
        gone = replace(after(a_view()), children=(), row=a_row("completed"))
        decided = plan(gone)
        assert not decided.does(Do.CREATE_JOB)
        assert says(written(decided))["Complete"] == ("True", "Completed")

    def test_of_two_jobs_the_older_goes(self) -> None:
        decided = plan(replace(after(a_view()), children=(a_child(1), a_child(2))))
        assert [(action.do, action.child.name) for action in decided.actions if action.child] == [(Do.DELETE_JOB, "crawl-1")]

    def test_progress_is_written_when_numbers_change_and_not_when_only_time_passes(self) -> None:
        told = after(replace(after(a_view()), children=(a_child(ready=1),), row=a_row(progress={"documents": 3})))
        progress = told.subject.status.progress
        assert progress is not None
        assert (progress.documents, progress.stage, progress.last_updated_time, told.subject.status.job_id) == (
            3,
            "fetching",
            ago(3),
            "3a0c",
        )
        assert plan(replace(told, row=a_row(progress={"documents": 3}, updated_at=text(NOW)))).actions == ()
        assert written(plan(replace(told, row=a_row(progress={"documents": 4})))).progress.documents == 4  # type: ignore[union-attr]


class TestPausing:
    def test_one_that_is_suspended_from_the_start_gets_no_job_and_no_deadline(self) -> None:
        view = a_view(a_subject(suspend=True), base=Base.NOT_FOUND)
        decided = plan(view)
        assert dos(decided) == [Do.WRITE_STATUS]
        assert says(written(decided))["Suspended"] == ("True", "Suspended")
        assert decided.after is None
        assert plan(after(view), 10_000).actions == ()

    def test_suspend_resume_and_the_pending_deadline_starts_anew(self) -> None:
        running = after(a_view())
        paused = replace(running, subject=replace(a_subject(suspend=True), status=running.subject.status), children=(a_child(),))
        decided = plan(paused)
        assert dos(decided) == [Do.SUSPEND_JOB, Do.WRITE_STATUS]
        held = replace(after(paused), children=(a_child(suspended=True),))
        assert plan(held, 5000).actions == ()
        resumed = replace(held, subject=replace(a_subject(), status=held.subject.status))
        again = plan(resumed, 5000)
        assert dos(again) == [Do.RESUME_JOB, Do.WRITE_STATUS]
        assert says(written(again))["Suspended"] == ("False", "Resumed")
        assert again.after == 600

    def test_a_job_that_somebody_else_suspended_is_resumed(self) -> None:
        assert dos(plan(replace(after(a_view()), children=(a_child(suspended=True),))))[0] is Do.RESUME_JOB

    def test_kueue_holds_its_jobs_and_lets_them_go(self) -> None:
        view = a_view(a_subject(labels=QUEUE))
        decided = plan(view)
        assert says(written(decided))["Suspended"] == ("True", "QueuedByKueue")
        queued = replace(after(view), children=(a_child(suspended=True, queued=True, started=None),))
        assert plan(queued, 100_000).actions == ()
        admitted = plan(replace(queued, children=(a_child(queued=True),)))
        assert says(written(admitted))["Suspended"] == ("False", "Resumed")
        assert not admitted.does(Do.RESUME_JOB)

    def test_suspending_what_kueue_would_admit_again_takes_its_job_away(self) -> None:
        view = a_view(a_subject(labels=QUEUE, suspend=True), children=(a_child(queued=True),))
        assert dos(plan(view))[0] is Do.DELETE_JOB


class TestEnding:
    def ended(self, **parts: Any) -> tuple[Plan, dict[str, tuple[str, str]]]:
        view = replace(after(a_view(a_subject(strict=parts.pop("strict", False)))), **parts)
        decided = plan(view)
        return decided, says(written(decided))

    def test_success_by_the_row(self) -> None:
        decided, status = self.ended(children=(a_child(finish=finished(complete=True)),), row=a_row("completed", outcome="all"))
        assert (status["Complete"], status["Failed"]) == (("True", "Completed"), ("False", "NotFailed"))
        assert dos(decided) == [Do.WRITE_STATUS, Do.EMIT_EVENT]
        assert (events(decided), written(decided).completion_time, decided.after) == ([EventReason.SUCCEEDED], ago(1), 0)

    def test_partial_success_completes_or_fails_if_strict(self) -> None:
        row = a_row("completed", outcome="partial")
        _, status = self.ended(children=(a_child(finish=finished(complete=True)),), row=row)
        assert status["Complete"] == ("True", "PartiallyCompleted")
        _, status = self.ended(children=(a_child(finish=finished(reason="PodFailurePolicy")),), row=row, strict=True)
        assert (status["Failed"], status["Complete"][0]) == (("True", "PartiallyCompleted"), "False")

    @pytest.mark.parametrize(
        ("finish", "row", "pod", "reason"),
        [
            (finished(reason="PodFailurePolicy"), a_row("failed", error_code="robots.delay_too_long"), None, "RobotsDelayTooLong"),
            (finished(reason="PodFailurePolicy"), a_row("failed", error_code="job.retries_exhausted"), None, "RetriesExhausted"),
            (finished(reason="PodFailurePolicy"), a_row("cancelled"), None, "Cancelled"),
            (finished(complete=True), a_row("cancelled"), None, "Cancelled"),
            (finished(reason="DeadlineExceeded"), a_row("pending"), None, "DeadlineExceeded"),
            (finished(reason="DeadlineExceeded"), a_row("failed", error_code="job.failed"), None, "DeadlineExceeded"),
            (finished(reason="BackoffLimitExceeded"), a_row("pending"), Pod(exit_code=137, oom_killed=True), "RetriesExhausted"),
            (finished(reason="PodFailurePolicy"), None, Pod(exit_code=10), "BadSpec"),
            (finished(reason="PodFailurePolicy"), None, Pod(exit_code=12, error_code="kb.unknown"), "KbUnknown"),
            (finished(reason="PodFailurePolicy", message="Container worker failed with exit code 11 matching"), None, None, "Auth"),
            (finished(reason="PodFailurePolicy", message="Container worker failed with exit code 14 matching"), None, None, "Budget"),
            (finished(reason="SomethingNew"), None, None, "SomethingNew"),
            (finished(), None, None, "Failed"),
        ],
    )
    def test_a_failure_has_its_reason(self, finish: Any, row: Any, pod: Any, reason: str) -> None:
        decided, status = self.ended(children=(a_child(finish=finish, failed=1),), row=row, pod=pod)
        assert status["Failed"] == ("True", reason)
        assert status["Complete"] == ("False", reason)
        assert events(decided) == [EventReason.FAILED]
        assert decided.does(Do.CANCEL_ROW) == (row is None or not row.ended)

    @pytest.mark.parametrize("reason", ["DeadlineExceeded", "BackoffLimitExceeded"])
    def test_knowledge_that_is_there_is_no_failure_whatever_became_of_the_pod(self, reason: str) -> None:
        _, status = self.ended(children=(a_child(finish=finished(reason=reason)),), row=a_row("completed"))
        assert status["Complete"] == ("True", "Completed")

    def test_an_orchestrator_that_is_away_is_waited_for_but_not_for_ever(self) -> None:
        view = replace(after(a_view()), children=(a_child(finish=finished(complete=True)),), row_unknown=True)
        assert (plan(view).actions, plan(view).after) == ((), LIMITS.row_poll)
        assert says(written(plan(view, 30)))["Complete"] == ("True", "Completed")

    def test_finished_jobs_go_after_a_while_and_the_ingestjob_after_its_ttl(self) -> None:
        done = after(replace(after(a_view()), children=(a_child(finish=finished(complete=True, seconds_ago=0)),)))
        assert (plan(done).actions, plan(done).after) == ((), LIMITS.job_retention)
        assert dos(plan(done, 300)) == [Do.DELETE_JOB]
        assert (plan(replace(done, children=()), 300).actions, plan(replace(done, children=()), 300).after) == ((), 86_100)
        assert dos(plan(replace(done, children=()), 86_400)) == [Do.DELETE_SELF]

    def test_a_job_that_still_runs_when_all_is_over_goes_at_once(self) -> None:
        done = after(replace(after(a_view()), children=(a_child(finish=finished(complete=True)),)))
        assert dos(plan(replace(done, children=(a_child(2),)))) == [Do.DELETE_JOB]

    def test_a_changed_ttl_is_seen_and_terminal_conditions_stay(self) -> None:
        done = after(replace(after(a_view()), children=(a_child(finish=finished(complete=True)),)))
        changed = replace(a_subject(ttlSecondsAfterFinished=5, meta={"generation": 2}), status=done.subject.status)
        decided = plan(replace(done, subject=changed, children=()))
        assert written(decided).observed_generation == 2
        assert written(decided).conditions == done.subject.status.conditions
        assert decided.after == pytest.approx(4)


CHILDREN = st.builds(
    lambda number, parts: a_child(number, **parts),
    st.integers(1, 3),
    st.fixed_dictionaries(
        {},
        optional={
            "deleting": st.booleans(),
            "suspended": st.booleans(),
            "queued": st.booleans(),
            "ready": st.integers(0, 1),
            "failed": st.integers(0, 4),
            "started": st.none(),
            "finish": st.sampled_from(
                [None, finished(complete=True), finished(reason="BackoffLimitExceeded"), finished(reason="PodFailurePolicy")]
            ),
        },
    ),
)
VIEWS = st.builds(
    lambda spec, queued, children, parts: a_view(
        a_subject(**spec, labels=QUEUE if queued else None), children=tuple({child.name: child for child in children}.values()), **parts
    ),
    st.fixed_dictionaries({}, optional={"suspend": st.booleans(), "strict": st.booleans(), "activeDeadlineSeconds": st.integers(1, 10)}),
    st.booleans(),
    st.lists(CHILDREN, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "row": st.sampled_from([None, a_row(), a_row("pending"), a_row("completed"), a_row("failed"), a_row("cancelled")]),
            "row_unknown": st.booleans(),
            "base": st.sampled_from(Base),
            "place_free": st.booleans(),
            "name_taken": st.sampled_from(["", "crawl-1"]),
            "refused": st.sampled_from(["", "quota"]),
        },
    ),
)


class TestAlways:
    @settings(max_examples=80, deadline=None)
    @given(VIEWS, st.integers(0, 1000))
    def test_what_holds_of_every_plan(self, view: View, seconds: int) -> None:
        decided = plan(view, seconds)
        names = dos(decided)
        assert names.count(Do.WRITE_STATUS) <= 1
        assert names.count(Do.CREATE_JOB) <= 1
        if Do.CREATE_JOB in names:
            assert not view.children
            assert Do.WRITE_STATUS in names
        order = [Do.CREATE_JOB, Do.WRITE_STATUS, Do.EMIT_EVENT]
        placed = [order.index(do) for do in names if do in order]
        assert placed == sorted(placed)
        if Do.EMIT_EVENT in names:
            assert Do.WRITE_STATUS in names
        if decided.does(Do.WRITE_STATUS):
            status = written(decided)
            assert {condition.type for condition in status.conditions} == set(ConditionType)
            assert not (status.true(ConditionType.COMPLETE) and status.true(ConditionType.FAILED))
            assert status.finished == (status.completion_time is not None)

    @settings(max_examples=80, deadline=None)
    @given(VIEWS, st.integers(0, 1000))
    def test_asked_again_after_its_status_was_written_it_writes_nothing(self, view: View, seconds: int) -> None:
        settled = after(view, seconds)
        assert not plan(settled, seconds).does(Do.WRITE_STATUS)
        assert not plan(settled, seconds).does(Do.CREATE_JOB)

    @settings(max_examples=80, deadline=None)
    @given(VIEWS, VIEWS, st.integers(0, 1000))
    def test_a_terminal_condition_never_changes(self, view: View, later: View, seconds: int) -> None:
        done = after(view, seconds)
        if not done.subject.status.finished:
            return
        subject = replace(later.subject, status=done.subject.status)
        decided = plan(replace(later, subject=subject), seconds + 1)
        assert not decided.does(Do.CREATE_JOB)
        if decided.does(Do.WRITE_STATUS):
            assert written(decided).conditions == done.subject.status.conditions
