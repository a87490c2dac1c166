"""The migration: one Job a revision, a backup first, then the keys."""

from __future__ import annotations

from typing import Any

from tests.chart.render import render


def job(flavour: str = "dev", **values: Any) -> dict[str, Any]:
    [found] = [one for one in render(flavour, values).of("Job") if "migrate" in one["metadata"]["name"]]
    return found


def steps(flavour: str = "dev", **values: Any) -> dict[str, dict[str, Any]]:
    pod = job(flavour, **values)["spec"]["template"]["spec"]
    return {one["name"]: one for one in (*pod.get("initContainers", ()), *pod["containers"])}


def test_the_schema_comes_first_and_then_the_keys() -> None:
    pod = job()["spec"]["template"]["spec"]
    assert [one["name"] for one in pod["initContainers"]] == ["upgrade"]
    assert [one["name"] for one in pod["containers"]] == ["keys"]
    assert steps()["upgrade"]["args"] == ["db", "upgrade", "--wait"]
    assert steps()["keys"]["args"][:2] == ["keys", "ensure"]
    assert {"/etc/shield/keys/admin", "/etc/shield/keys/operator"} <= set(steps()["keys"]["args"])


def test_it_is_no_hook_and_another_one_for_other_work() -> None:
    assert "annotations" not in job()["metadata"]
    assert job()["metadata"]["name"] == job()["metadata"]["name"]
    assert job()["metadata"]["name"] != job(images={"server": {"tag": "0.3.0"}})["metadata"]["name"]


def test_a_database_is_saved_to_the_object_store_before() -> None:
    upgrade = steps("production")["upgrade"]
    assert upgrade["args"] == ["db", "upgrade", "--wait", "--backup", "s3://backups/shield/"]
    assert {"name": "AWS_REGION", "value": "us-east-1"} in upgrade["env"]
    given = steps("production", backup={"s3": {"existingSecret": "s3", "endpoint": "http://minio:9000"}})["upgrade"]
    assert {"secretRef": {"name": "s3"}} in given["envFrom"]
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"} in given["env"]


def test_or_to_a_volume_that_stays() -> None:
    rendered = render("keda")
    assert steps("keda")["upgrade"]["args"][-1] == "/var/backups/shield/"
    claim = rendered.one("PersistentVolumeClaim", "backups")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert (claim["spec"]["storageClassName"], claim["spec"]["resources"]["requests"]["storage"]) == ("fast", "5Gi")
    own = render("keda", {"backup": {"pvc": {"existingClaim": "mine"}}})
    assert "backups" not in own.names("PersistentVolumeClaim")
    volumes = job("keda", backup={"pvc": {"existingClaim": "mine"}})["spec"]["template"]["spec"]["volumes"]
    assert {"name": "backups", "persistentVolumeClaim": {"claimName": "mine"}} in volumes


def test_where_nobody_has_keys_none_are_let_in() -> None:
    assert set(steps("oidc-ingress")) == {"upgrade"}


def test_it_may_be_left_out() -> None:
    assert not [one for one in render(values={"migration": {"enabled": False}}).of("Job") if "migrate" in one["metadata"]["name"]]
