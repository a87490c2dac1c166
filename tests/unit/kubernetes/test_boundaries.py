"""No action and no exit code is without a boundary, and what is found wrong is sorted rightly."""

from __future__ import annotations

import pytest

from shield.errors import Exit
from shield_operator.ingestjobs.decide import Do
from tests.kubernetes.boundaries import faults, harm, kills, leadership
from tests.kubernetes.boundaries.__main__ import noticed


def test_every_action_that_decide_can_emit_has_two_kills() -> None:
    assert set(kills.SCENARIOS) == set(Do)
    assert len(kills.cases()) == 2 * len(Do)


def test_an_action_without_a_scenario_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(kills.SCENARIOS, Do.CANCEL_ROW)
    with pytest.raises(AssertionError, match="CANCEL_ROW"):
        kills.cases()


def test_every_published_exit_code_has_a_consequence() -> None:
    assert {*harm.FINAL, *harm.RETRIED, *harm.UNCOUNTED, *harm.PARTIAL, *harm.FINE} == set(Exit)


@pytest.mark.parametrize(
    ("sabotage", "fault", "seen"),
    [
        ("names", "DUPLICATE: a/one had 2 Jobs, 2 at once: ['one-1', 'one-x']", True),
        ("names", "LOST: a/one had 0 Jobs, not 1", False),
        ("cancel", "LOST: a/one: its rows are [('pending', 'ingestjob:u')], not [('cancelled', 'ingestjob:u')]", True),
        ("cancel", "WRONG: a could not be played: TimeoutError()", False),
        ("owner", "LOST: not within 9 s: a: Failed True JobNameConflict of one; conditions []", True),
        ("owner", "LOST: not within 9 s: a: the end of two", False),
    ],
)
def test_a_sabotage_is_noticed_by_what_it_does_and_by_nothing_else(sabotage: str, fault: str, *, seen: bool) -> None:
    assert noticed(sabotage, [fault]) is seen
    assert noticed(sabotage, []) is False


def test_names_of_cases_are_names_of_namespaces_and_there_is_a_short_form() -> None:
    cases = [*kills.cases(), *faults.cases(), *harm.cases(), *leadership.cases()]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 and name == name.lower() for name in names)
    assert 5 < sum(case.smoke for case in cases) < len(cases) / 2
