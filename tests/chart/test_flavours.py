"""Every flavour of ci/: linted, valid for a real API server, restricted, and the same under both Helm versions."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from kind.binaries import binary, directory
from kind.catalogue import FLAGGER, GATEWAY_API, KEDA, PROMETHEUS_OPERATOR
from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until
from tests.chart.render import CHART, FLAVOURS, NAMESPACE, manifest, render

FOREIGN = (
    (GATEWAY_API, "*.yaml"),
    (PROMETHEUS_OPERATOR, "monitoring.coreos.com_*.yaml"),
    (FLAGGER, "crd.yaml"),
    (KEDA, "keda.sh_*.yaml"),
)
"""Whose kinds the chart renders, and the files that define them."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with our CRDs and those of others, and a namespace that takes restricted pods only."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        foreign = [str(file) for tool, pattern in FOREIGN for file in sorted(directory(tool).glob(pattern))]
        definitions = [word for file in (str(CHART / "files" / "crds"), *foreign) for word in ("-f", file)]
        plane.kubectl("apply", "--server-side", *definitions, timeout=120)
        until("all kinds are served", lambda: _served(plane), limit=60)
        for namespace in (NAMESPACE, "team-a", "team-b"):
            plane.kubectl("create", "namespace", namespace)
        plane.kubectl("label", "namespace", NAMESPACE, *(f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")))
        yield plane


def _served(plane: ControlPlane) -> bool:
    conditions = [one.get("status", {}).get("conditions") or () for one in json.loads(plane.kubectl("get", "crds", "-o", "json"))["items"]]
    return all(any(each["type"] == "Established" and each["status"] == "True" for each in one) for one in conditions)


def test_there_are_enough_of_them() -> None:
    assert len(FLAVOURS) >= 6


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_helm_finds_nothing_to_complain_about(flavour: str) -> None:
    command = [str(binary("helm")), "lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{flavour}-values.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "[WARNING]" in done.stdout) == (0, False), done.stdout + done.stderr


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_api_server_takes_every_object_and_warns_of_none(flavour: str, plane: ControlPlane) -> None:
    """Server-side, with strict fields: schema, CEL rules, immutable names; kinds of others (Prometheus, Gateway API, Flagger, KEDA), too."""
    known = [one for one in render(flavour).objects if one["kind"] != "Pod"]  # it needs its ServiceAccount first; all pods are tried below
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": known})
    said = plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=items, timeout=120)
    assert len(said.splitlines()) == len(known)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_pod_is_admitted_where_only_restricted_ones_are(flavour: str, plane: ControlPlane) -> None:
    for name, template in render(flavour).pods():
        accounts = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
        accounts.pop("priorityClassName", None)  # a class of the user's
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": "p", "namespace": NAMESPACE},
            "spec": accounts,
        }
        try:
            plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))
        except KubectlFailed as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_pod_has_limits_a_read_only_root_and_no_service_links(flavour: str) -> None:
    for name, template in render(flavour).pods():
        pod = template["spec"]
        assert pod["enableServiceLinks"] is False, name
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"], name


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_object_says_whose_it_is_and_names_are_valid(flavour: str) -> None:
    for one in render(flavour, release="a-rather-long-name-of-a-release-indeed").objects:
        limit = 63 if one["kind"] in {"Service", "Deployment", "StatefulSet", "Job"} else 253
        assert len(one["metadata"]["name"]) <= limit, one["metadata"]["name"]
        if one["metadata"]["name"] != "a-rather-long-name-of-a-release-indeed-extra":
            assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "shield", one


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_helm_3_renders_the_same(flavour: str) -> None:
    values = json.dumps({"monitoring": {"disableAPICheck": True}, "crds": {"install": False}})
    new, old = (list(yaml.load_all(manifest(flavour, values, helm=helm), yaml.CSafeLoader)) for helm in ("helm", "helm3"))
    key = lambda one: (one["kind"], one["metadata"]["name"])  # noqa: E731
    assert sorted((one for one in new if one), key=key) == sorted((one for one in old if one), key=key)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_credential_stands_in_what_is_rendered(flavour: str) -> None:
    text = manifest(flavour, json.dumps({"monitoring": {"disableAPICheck": True}, "crds": {"install": False}}))
    assert "kind: Secret\n" not in text
    assert not re.search(r"shk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", text)
    assert not re.search(r"://[^/\s{}\"@]*:[^/\s{}\"@]+@", text)


def test_common_labels_and_names_of_an_umbrella_reach_everything() -> None:
    assert all(one["metadata"]["labels"].get("team") == "knowledge" for one in render("production", crds=True).objects)
    umbrella = render("umbrella")
    assert all(one["metadata"]["name"].startswith("shield-knowledge") for one in umbrella.objects)
    images = [one["image"] for _, template in umbrella.pods() for one in template["spec"]["containers"]]
    assert all(image.startswith("registry.example.com/mirror/") for image in images)
    assert all(template["spec"]["imagePullSecrets"] == [{"name": "umbrella"}] for _, template in umbrella.pods())
