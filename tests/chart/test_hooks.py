"""The hooks that make secrets: named in the release, made in the cluster, never rendered."""

from __future__ import annotations

import json
from typing import Any

from shield_operator.bootstrap import read_spec
from tests.chart.render import FLAVOURS, render


def spec(flavour: str = "dev", **values: Any) -> dict[str, Any]:
    """What the hook is asked to make, by Secret."""
    args = render(flavour, values).container("Job", "secrets")["args"]
    assert args[:4] == ["secrets", "ensure", "--namespace", "team"]
    return {one["name"]: one["keys"] for one in json.loads(args[5])}


def test_no_secret_is_rendered_in_any_flavour() -> None:
    for flavour in FLAVOURS:
        assert render(flavour).of("Secret") == []


def test_the_specification_is_one_that_the_program_reads() -> None:
    for flavour in set(FLAVOURS) - {"production"}:
        rendered = render(flavour)
        named = {one.name for one in read_spec(rendered.container("Job", "secrets")["args"][5])}
        assert named == set(rendered.one("Role", "hooks")["rules"][0]["resourceNames"])


def test_dev_makes_stores_services_hop_secret_and_keys() -> None:
    made = spec()
    assert set(made) == {"shield-stores", "shield-services", "shield-auth", "shield-keys"}
    assert set(made["shield-keys"]) == {"admin", "operator", "smoke", "probe"}
    assert made["shield-services"]["SHIELD_POSTGRES_DSN"] == {
        "text": "postgresql://shield:{stores/postgres-password}@shield-postgres.team.svc:5432/shield"
    }
    assert made["shield-auth"] == {"SHIELD_AUTH_HOP_SECRET": {"random": "hex"}}


def test_production_makes_only_the_keys_and_none_of_those_that_are_given() -> None:
    assert set(spec("production", existingSecrets={"keys": ""})) == {"shield-keys"}
    assert "secrets" not in render("production").names("Job")
    assert render("production").names("ServiceAccount") == {"shield", "operator"}


def test_the_hook_may_touch_the_named_secrets_and_nothing_else() -> None:
    rules = render().one("Role", "hooks")["rules"]
    assert rules[0] == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["shield-stores", "shield-services", "shield-auth", "shield-keys"],
        "verbs": ["get", "patch", "delete"],
    }
    assert rules[1:] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]


def test_rights_come_before_their_use_and_go_with_it() -> None:
    hooks = {
        f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["annotations"]
        for one in render().objects
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == "hooks"
    }
    assert int(hooks["Role/shield-hooks"]["helm.sh/hook-weight"]) < int(hooks["Job/shield-secrets"]["helm.sh/hook-weight"])
    assert {one["helm.sh/hook-delete-policy"] for one in hooks.values()} == {"before-hook-creation,hook-succeeded"}
    assert hooks["Job/shield-secrets"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert hooks["Job/shield-secrets-delete"]["helm.sh/hook"] == "post-delete"
    assert hooks["Role/shield-hooks"]["helm.sh/hook"] == "pre-install,pre-upgrade,post-delete"


def test_an_uninstall_deletes_the_secrets_unless_data_is_kept() -> None:
    assert render().container("Job", "secrets-delete")["args"][:2] == ["secrets", "delete"]
    kept = render("keda")
    assert "secrets-delete" not in kept.names("Job")
    assert kept.one("Role", "hooks")["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_the_hooks_have_a_token_and_the_servers_have_none() -> None:
    assert render().pod("Job", "secrets")["automountServiceAccountToken"] is True
    assert {name for name, template in render().pods() if template["spec"]["automountServiceAccountToken"]} == {
        "Job/shield-secrets", "Job/shield-secrets-delete", "Deployment/shield-operator",
    }  # fmt: skip
