"""The ServiceAccount of the pods: a name for cloud roles, no token for the Kubernetes API."""

from __future__ import annotations

from tests.chart.render import render


def test_it_has_no_token_and_may_carry_a_cloud_role() -> None:
    assert render().one("ServiceAccount", "shield")["automountServiceAccountToken"] is False
    [account] = [
        one for one in render("umbrella").of("ServiceAccount") if one["metadata"].get("annotations") == {"example.com/role": "shield"}
    ]
    assert account["metadata"]["name"] == "shield-knowledge"
