"""Conditions, as Kubernetes' own helper sets them."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shield_operator.api.meta import Condition, ConditionStatus, find, with_condition

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def a_condition(type_: str, status: ConditionStatus, reason: str = "Because", at: datetime = EARLY) -> Condition:
    return Condition(type=type_, status=status, reason=reason, last_transition_time=at)


class TestWithCondition:
    def test_a_new_type_comes_last(self) -> None:
        accepted, failed = a_condition("Accepted", ConditionStatus.TRUE), a_condition("Failed", ConditionStatus.FALSE)
        assert with_condition((accepted,), failed) == (accepted, failed)

    def test_an_equal_status_keeps_its_transition_time_and_takes_the_new_reason(self) -> None:
        old = (a_condition("Complete", ConditionStatus.FALSE, "Pending"),)
        (new,) = with_condition(old, a_condition("Complete", ConditionStatus.FALSE, "Running", LATE))
        assert (new.reason, new.last_transition_time) == ("Running", EARLY)

    def test_a_new_status_takes_the_new_transition_time(self) -> None:
        old = (a_condition("Complete", ConditionStatus.FALSE),)
        (new,) = with_condition(old, a_condition("Complete", ConditionStatus.TRUE, at=LATE))
        assert new.last_transition_time == LATE

    @given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(ConditionStatus)), max_size=20))
    def test_each_type_is_there_once_with_what_was_said_last(self, said: list[tuple[str, ConditionStatus]]) -> None:
        conditions: tuple[Condition, ...] = ()
        for type_, status in said:
            conditions = with_condition(conditions, a_condition(type_, status))
        assert {condition.type: condition.status for condition in conditions} == dict(said)
        assert len(conditions) == len(dict(said))

    @given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(ConditionStatus)), max_size=20))
    def test_saying_it_again_changes_nothing(self, said: list[tuple[str, ConditionStatus]]) -> None:
        conditions: tuple[Condition, ...] = ()
        for type_, status in said:
            conditions = with_condition(conditions, a_condition(type_, status))
        for condition in conditions:
            assert with_condition(conditions, condition.model_copy(update={"last_transition_time": LATE})) == conditions


def test_a_condition_that_was_never_set_is_not_found() -> None:
    assert find((a_condition("Complete", ConditionStatus.TRUE),), "Failed") is None
