"""The workflows: actionlint takes them, they name what exists, and nothing is published that the version does not say."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.catalogue import PRODUCT
from kind.binaries import binary
from tests.chart.render import Refused, manifest
from tools.chart_sbom import bill, image_component

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(name: str) -> list[dict[str, Any]]:
    """All steps of a workflow."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def scripts(path: Path) -> str:
    return "\n".join(step.get("run", "") for step in steps(path.stem))


def test_actionlint_takes_them_all() -> None:
    done = subprocess.run(
        [str(binary("actionlint")), "-no-color", *map(str, WORKFLOWS)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_make_target_and_every_file_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = scripts(path)
    for named in re.findall(r"(?:^|\s)make ([a-z][a-z0-9 -]*[a-z0-9])", text):
        assert set(named.split()) <= targets, named
    for name in re.findall(r"\b((?:charts|src|tools|tests)/[\w./-]+)", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_and_every_service_is_pinned_to_a_version(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    used = [step["uses"] for step in steps(path.stem) if "uses" in step]
    assert all(re.search(r"@(v\d+(\.\d+)*|[0-9a-f]{40})$", action) for action in used), used
    for job in workflow["jobs"].values():
        for service in job.get("services", {}).values():
            assert re.search(r"(:v?\d[\w.-]+|@sha256:[0-9a-f]{64})$", service["image"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_only_jobs_that_publish_may_write(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        writes = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        assert writes == ({"packages", "id-token"} if path.stem == "release" and name in {"image", "chart"} else set())


def test_the_qdrant_of_the_end_to_end_run_is_the_one_that_the_chart_installs() -> None:
    values = yaml.safe_load((ROOT / "charts" / "shield" / "values.yaml").read_text(encoding="utf-8"))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "e2e.yml").read_text(encoding="utf-8"))
    tag = values["qdrant"]["image"]["tag"].removesuffix("-unprivileged")
    assert workflow["jobs"]["kind"]["services"]["qdrant"]["image"] == f"qdrant/qdrant:{tag}"


def test_every_image_and_the_chart_is_signed_and_attested() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    assert set(workflow["jobs"]["image"]["strategy"]["matrix"]["target"]) == {image.target for image in PRODUCT}
    for job in ("image", "chart"):
        text = "\n".join(step.get("run", "") for step in workflow["jobs"][job]["steps"])
        assert "cosign sign --yes" in text
        assert "cosign attest --yes --type cyclonedx --predicate sbom.cdx.json" in text


def test_values_of_the_end_to_end_installation_are_taken_by_the_chart() -> None:
    [install] = [step["run"] for step in steps("e2e") if "helm install" in step.get("run", "")]
    assert "qdrant.enabled=false" in install
    values = {
        "imageRegistry": "localhost",
        "qdrant": {"enabled": False},
        "external": {"qdrant": {"url": "http://172.18.0.1:6333", "cidrs": ["172.18.0.1/32"], "port": 6333}},
    }
    try:
        text = manifest("dev", json.dumps(values))
    except Refused as refused:
        pytest.fail(str(refused))
    assert "http://172.18.0.1:6333" in text


def test_the_charts_bill_of_materials_lists_every_image_once() -> None:
    objects = [one for one in yaml.safe_load_all(manifest("production")) if one]
    found = bill(objects)
    names = [one["name"] for one in found["components"]]
    assert "ghcr.io/hx-citadel/shield-operator" in names
    assert len(names) == len({one["bom-ref"] for one in found["components"]})
    assert {one["bom-ref"] for one in found["components"]} == set(found["dependencies"][0]["dependsOn"])
    assert found["metadata"]["component"]["name"] == "shield"


def test_an_image_by_digest_is_listed_by_it() -> None:
    component = image_component("registry.example.com:5000/team/shield-server@sha256:" + "0" * 64)
    assert component["name"] == "registry.example.com:5000/team/shield-server"
    assert component["purl"].startswith("pkg:oci/shield-server@sha256%3A0000")
    assert image_component("docker.io/qdrant/qdrant:v1.18.0")["version"] == "v1.18.0"
