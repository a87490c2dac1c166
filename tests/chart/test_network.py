"""The evaluator itself, on policies small enough to check by eye."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.network import Outside, Pod, allowed

WEB, DB, STRANGER = Pod("a", {"app": "web"}), Pod("a", {"app": "db"}), Pod("b", {"app": "web"}, {"team": "b"})
INTERNET = Outside("93.184.216.34")


def policy(selector: dict[str, Any], types: list[str], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "a"}, "spec": {"podSelector": selector, "policyTypes": types, **spec}}


DENY = policy({}, ["Ingress", "Egress"])


def test_without_a_policy_all_is_open_and_with_an_empty_one_nothing_is() -> None:
    assert allowed([], WEB, DB, 1)
    assert not allowed([DENY], WEB, DB, 1)
    assert not allowed([DENY], WEB, INTERNET, 443)
    assert not allowed([DENY], STRANGER, WEB, 80)
    assert allowed([DENY], STRANGER, INTERNET, 80)


def test_both_ends_have_to_agree_and_policies_add_up() -> None:
    out = policy(
        {"matchLabels": {"app": "web"}},
        ["Egress"],
        egress=[{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5432}]}],
    )
    into = policy({"matchLabels": {"app": "db"}}, ["Ingress"], ingress=[{"from": [{"podSelector": {}}]}])
    assert not allowed([DENY, out], WEB, DB, 5432)
    assert allowed([DENY, out, into], WEB, DB, 5432)
    assert not allowed([DENY, out, into], WEB, DB, 5433)
    assert not allowed([DENY, out, into], WEB, DB, 5432, "UDP")
    assert not allowed([DENY, out, into], STRANGER, DB, 5432)


@pytest.mark.parametrize(
    ("peer", "own", "other", "outside"),
    [
        ({"podSelector": {}}, True, False, False),
        ({"namespaceSelector": {}}, True, True, False),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, False, True, False),
        (
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}}, "podSelector": {"matchLabels": {"app": "db"}}},
            False,
            False,
            False,
        ),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}, True, False, False),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, False, False, True),
        ({"ipBlock": {"cidr": "::/0"}}, False, False, False),
    ],
)
def test_peers(peer: dict[str, Any], own: bool, other: bool, outside: bool) -> None:
    policies = [policy({}, ["Ingress"], ingress=[{"from": [peer]}])]
    assert (allowed(policies, WEB, DB, 1), allowed(policies, STRANGER, DB, 1), allowed(policies, INTERNET, DB, 1)) == (own, other, outside)


@pytest.mark.parametrize(("operator", "values", "selected"), [("In", ["web"], True), ("NotIn", ["web"], False), ("Exists", None, True)])
def test_expressions(operator: str, values: list[str] | None, selected: bool) -> None:
    chosen = policy({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}, ["Egress"])
    assert allowed([chosen], WEB, INTERNET, 1) is not selected


def test_an_operator_that_is_none_is_no_silent_yes() -> None:
    with pytest.raises(ValueError, match="Near"):
        allowed([policy({"matchExpressions": [{"key": "app", "operator": "Near"}]}, ["Egress"])], WEB, DB, 1)
