"""The operator's rights: its own table, everywhere or in the named namespaces."""

from __future__ import annotations

from shield_operator.manifests.permissions import CLUSTER, EDITOR, OWN_NAMESPACE, VIEWER
from tests.chart.render import render


def test_the_rights_are_those_of_the_operators_table() -> None:
    rendered = render()
    assert rendered.one("ClusterRole", "operator-team")["rules"] == [one.rule() for one in CLUSTER]
    assert rendered.one("Role", "operator")["rules"] == [one.rule() for one in OWN_NAMESPACE]
    assert rendered.one("ClusterRole", "view-team")["rules"] == [one.rule() for one in VIEWER]
    assert rendered.one("ClusterRole", "edit-team")["rules"] == [one.rule() for one in EDITOR]


def test_no_right_reaches_secrets() -> None:
    for role in (*render().of("ClusterRole"), render().one("Role", "operator")):
        assert not [rule for rule in role["rules"] if "secrets" in rule["resources"] or "*" in rule["resources"] + rule["verbs"]]


def test_with_namespaces_nothing_is_bound_to_the_cluster() -> None:
    assert render().names("ClusterRoleBinding") == {"operator-team"}
    rendered = render("keda")
    assert rendered.of("ClusterRoleBinding") == []
    bound = {one["metadata"]["namespace"] for one in rendered.of("RoleBinding") if one["roleRef"]["kind"] == "ClusterRole"}
    assert bound == {"team-a", "team-b"}


def test_who_may_edit_a_namespace_may_ingest_into_it() -> None:
    labels = render().one("ClusterRole", "edit-team")["metadata"]["labels"]
    assert labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in labels
    assert "rbac.authorization.k8s.io/aggregate-to-view" in render().one("ClusterRole", "view-team")["metadata"]["labels"]


def test_two_releases_do_not_share_cluster_wide_names() -> None:
    names = [{one["metadata"]["name"] for one in render(namespace=namespace).of("ClusterRole")} for namespace in ("a", "b")]
    assert not names[0] & names[1]
