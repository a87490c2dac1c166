"""The manifests of the test services on a real API server: accepted as they are, and every pod passes the Pod Security level `restricted`."""

from __future__ import annotations

import json

import pytest

from kind.control_plane import ControlPlane
from kind.waiting import until
from tests.kubernetes.services.deploy import RESTRICTED, Deployed, apply, config_object, read, secret_objects

IMAGES = {"shield-server": "127.0.0.1:5000/shield-server:1", "shield-test-services": "127.0.0.1:5000/shield-test-services:1"}
PASSWORDS = {"postgres": "p", "valkey": "v", "qdrant": "q", "hop": "h" * 32}
ADDRESSES = {"shield-api": "10.96.0.11", "shield-mcp": "10.96.0.12"}
WORKLOADS = {"postgres": 1, "valkey": 1, "qdrant": 1, "site": 1, "shield-api": 1, "shield-mcp": 1, "shield-worker": 2, "shield-migrate": 1}


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    name = "services"
    apply(
        plane.kubectl, name, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}], namespaced=False
    )
    return name


def test_every_workload_gets_its_pods_in_a_restricted_namespace(plane: ControlPlane, namespace: str) -> None:
    objects = [*read("services.yaml", IMAGES), *read("shield.yaml", IMAGES), *secret_objects(namespace, PASSWORDS)]
    apply(plane.kubectl, namespace, [*objects, config_object(namespace, ADDRESSES, "10.96.0.0/16")])

    def pods() -> dict[str, int]:
        found: dict[str, int] = {}
        for pod in plane.get("pods", "-n", namespace)["items"]:
            name = pod["metadata"]["labels"]["app.kubernetes.io/name"]
            found[name] = found.get(name, 0) + 1
        return found

    until("every workload has its pods", lambda: pods() == WORKLOADS, limit=60)
    unmounted = [pod["spec"]["automountServiceAccountToken"] for pod in plane.get("pods", "-n", namespace)["items"]]
    assert unmounted == [False] * sum(WORKLOADS.values())


def test_applying_twice_changes_nothing(plane: ControlPlane, namespace: str) -> None:
    objects = [*read("services.yaml", IMAGES), *read("shield.yaml", IMAGES)]
    versions = []
    for _ in range(2):
        apply(plane.kubectl, namespace, objects)
        versions.append(
            {item["metadata"]["name"]: item["metadata"]["generation"] for item in plane.get("deployments", "-n", namespace)["items"]}
        )
    assert versions[0] == versions[1]


def test_passwords_are_in_the_secrets_and_nowhere_else() -> None:
    others = [*read("services.yaml", IMAGES), *read("shield.yaml", IMAGES), config_object("n", ADDRESSES, "10.96.0.0/16")]
    passwords = {name: f"secret-{name}" for name in PASSWORDS}
    assert not [value for value in passwords.values() if value in json.dumps(others)]
    told = json.dumps(secret_objects("n", passwords))
    assert all(value in told for value in passwords.values())


def test_a_key_is_made_by_the_orchestrator_itself() -> None:
    asked: list[tuple[str, ...]] = []

    def kubectl(*arguments: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002
        asked.append(arguments)
        return '{"key": "shk_x"}'

    assert Deployed(kubectl, "n", "10.96.0.11", "10.96.0.12").api_key() == "shk_x"
    assert asked == [("exec", "-n", "n", "deploy/shield-api", "--", "shield", "keys", "create", "--json", "--admin", "--name", "test")]
