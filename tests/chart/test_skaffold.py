"""skaffold.yaml: valid by Skaffold's own schema, and everything that it names exists and fits together, in each profile."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kind.binaries import directory
from kind.catalogue import SKAFFOLD
from tests.chart.render import Rendered, render

ROOT = Path(__file__).parents[2]
PROFILES = ("", "crawler", "services")


@cache
def config() -> dict[str, Any]:
    """The file."""
    return dict(yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8")))


def under(profile: str) -> dict[str, Any]:
    """The configuration with a profile's patches (JSON Patch, of which `add` and `replace` are used)."""
    changed = deepcopy(config())
    patches: list[dict[str, Any]] = next((one["patches"] for one in config()["profiles"] if one["name"] == profile), [])
    for patch in patches:
        *parents, last = patch["path"].strip("/").split("/")
        at: Any = changed
        for name in parents:
            at = at[int(name)] if isinstance(at, list) else at[name]
        if patch["op"] == "replace":
            assert last in at, f"{patch['path']} replaces nothing"
        if isinstance(at, list):
            assert last == "-"
            at.append(patch["value"])
        else:
            at[last] = patch["value"]
    return changed


def release(profile: str) -> dict[str, Any]:
    [found] = under(profile)["deploy"]["helm"]["releases"]
    return dict(found)


def installed(profile: str) -> Rendered:
    """What Helm makes of the values that Skaffold gives it, every image built as `registry.test/<name>:built`."""
    given = release(profile)
    [values] = given["valuesFiles"]
    flat = dict(given["setValues"])
    for key, template in given["setValueTemplates"].items():
        kind, image = re.fullmatch(r"\{\{\.IMAGE_(REPO|TAG)_(\w+)}}", template).groups()  # type: ignore[union-attr]
        flat[key] = f"registry.test/{image.replace('_', '-')}" if kind == "REPO" else "built"
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        at = nested
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = value
    return render(Path(values).name.removesuffix("-values.yaml"), nested, namespace=given["namespace"])


def test_it_is_valid_by_the_schema_of_its_version() -> None:
    [schema] = directory(SKAFFOLD).glob("**/v4beta*.json")
    assert config()["apiVersion"] == f"skaffold/{schema.stem}"
    jsonschema.validate(config(), json.loads(schema.read_text(encoding="utf-8")))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_dockerfile_and_its_target_exist(profile: str) -> None:
    artifacts = under(profile)["build"]["artifacts"]
    for artifact in artifacts:
        text = (ROOT / artifact["docker"]["dockerfile"]).read_text(encoding="utf-8")
        assert re.search(rf"^FROM \S+ AS {artifact['docker']['target']}$", text, re.MULTILINE), artifact["image"]
        for needed in artifact.get("requires", []):
            assert needed["image"] in {one["image"] for one in artifacts}
            assert f"ARG {needed['alias']}=" in text


@pytest.mark.parametrize("profile", PROFILES)
def test_chart_and_values_files_exist_and_every_value_is_one_of_the_charts(profile: str) -> None:
    given = release(profile)
    assert (ROOT / given["chartPath"] / "Chart.yaml").is_file()
    assert all((ROOT / name).is_file() for name in given["valuesFiles"])
    known = yaml.safe_load((ROOT / given["chartPath"] / "values.yaml").read_text(encoding="utf-8"))
    for key in (*given["setValues"], *given["setValueTemplates"]):
        at: Any = known
        for name in key.split("."):
            assert name in at, key
            at = at[name]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_installed_runs_what_was_built(profile: str) -> None:
    built = {f"registry.test/{artifact['image']}:built" for artifact in under(profile)["build"]["artifacts"]}
    used = {
        container["image"]
        for _, pod in installed(profile).pods()
        for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"])
    }
    assert built <= used, "an image is built and not used"
    foreign = used - built
    if profile == "services":
        assert foreign == set()
    assert not any(image.startswith("registry.test") or "shield" in image for image in foreign)


def test_forwarded_services_exist_at_their_ports() -> None:
    services = {one["metadata"]["name"]: one for one in installed("").of("Service")}
    for forward in config()["portForward"]:
        assert forward["namespace"] == release("")["namespace"]
        assert forward["port"] in {port["port"] for port in services[forward["resourceName"]]["spec"]["ports"]}
