"""kubeconform over every flavour, against the schemas of the very API server that runs here: closed, so an unknown field is an error without a cluster, too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kind.binaries import binary
from kind.control_plane import ControlPlane
from tests.chart.render import FLAVOURS, manifest

FOREIGN = ("ServiceMonitor", "PrometheusRule", "HTTPRoute", "Canary", "MetricTemplate", "ScaledObject")
_LOCATION = "{{ .Group }}_{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json"


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one JSON Schema a kind."""
    directory = tmp_path_factory.mktemp("schemas")
    with ControlPlane(tmp_path_factory.mktemp("plane"), controllers=False) as plane:
        definitions = json.loads(plane.kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    closed = {name: _closed(schema) for name, schema in definitions.items()}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            path = directory / f"{kind['group'] or 'v1'}_{kind['kind'].lower()}_{kind['version']}.json"
            path.write_text(json.dumps({"$ref": f"#/definitions/{name}", "definitions": _needed(name, closed)}))
    return directory


def _closed(schema: Any) -> Any:
    """The same schema in plain JSON Schema: no field beyond those that it names, and numbers where Kubernetes takes them beside text."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    if found.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object" and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found


def _needed(name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A definition and all that it leads to."""
    needed: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in needed:
            needed[current] = definitions[current]
            waiting += [part.partition('"')[0] for part in json.dumps(definitions[current]).split('"#/definitions/')[1:]]
    return needed


def conform(text: str, schemas: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(binary("kubeconform")),
        "-strict",
        "-summary",
        "-schema-location",
        f"{schemas}/{_LOCATION}",
        "-skip",
        ",".join(FOREIGN),
        "-",
    ]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_object_conforms(flavour: str, schemas: Path) -> None:
    done = conform(manifest(flavour, json.dumps({"monitoring": {"disableAPICheck": True}})), schemas)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid: 0" not in done.stdout


def test_a_field_that_is_none_is_noticed(schemas: Path) -> None:
    text = manifest("dev", json.dumps({"crds": {"install": False}})).replace("revisionHistoryLimit:", "revisionHistoryLimits:", 1)
    assert conform(text, schemas).returncode == 1
