"""`helm template`, parsed: `rendered = render("production", {"mcp": {"replicas": 3}})`, then `rendered.one("Deployment", "mcp")`.

A rendering is kept, since most tests look at the same ones. Names are without the release's: the release is called `shield`, in the namespace `team`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kind.binaries import binary

CHART = Path(__file__).parents[2] / "charts" / "shield"
FLAVOURS = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE, NAMESPACE = "shield", "team"
OLDEST = "1.31.0"
"""The oldest Kubernetes that the chart is for; a Helm that we build knows no version of its own."""

Obj = dict[str, Any]


class Refused(Exception):
    """Helm refused the values; the message is what it said."""


@dataclass(frozen=True)
class Rendered:
    """All objects of a release, hooks included."""

    objects: tuple[Obj, ...]

    def _short(self, found: Obj) -> str:
        name: str = found["metadata"]["name"]
        return RELEASE if name == self.full_name else name.removeprefix(f"{self.full_name}-")

    @property
    def full_name(self) -> str:
        """What all names begin with: that of the pods' ServiceAccount."""
        accounts = (one["metadata"] for one in self.objects if one["kind"] == "ServiceAccount")
        return str(next(one["name"] for one in accounts if one["labels"]["app.kubernetes.io/component"] == "pods"))

    def of(self, kind: str) -> list[Obj]:
        """All of a kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def names(self, kind: str) -> set[str]:
        """Their names, without the release's."""
        return {self._short(found) for found in self.of(kind)}

    def one(self, kind: str, name: str) -> Obj:
        """The one of that name."""
        [found] = [found for found in self.of(kind) if self._short(found) == name]
        return found

    def pod(self, kind: str, name: str) -> Obj:
        """The pod's spec in the one of that name."""
        spec: Obj = self.one(kind, name)["spec"]
        return spec if kind == "Pod" else dict(spec["template"]["spec"])

    def container(self, kind: str, name: str) -> Obj:
        """Its only container."""
        [found] = self.pod(kind, name)["containers"]
        return dict(found)

    def env(self, kind: str, name: str) -> dict[str, str]:
        """The variables that are said in its only container."""
        return {one["name"]: one.get("value", "") for one in self.container(kind, name).get("env", ())}

    def pods(self) -> list[tuple[str, Obj]]:
        """Every pod and pod template, with the name of what makes it."""
        found = [(f"{one['kind']}/{one['metadata']['name']}", one) for one in self.objects]
        return [
            (name, one if one["kind"] == "Pod" else one["spec"]["template"])
            for name, one in found
            if one["kind"] == "Pod" or "template" in one.get("spec", {})
        ]


def render(flavour: str = "dev", values: Mapping[str, Any] | None = None, *, crds: bool = False, **options: Any) -> Rendered:
    """Render a flavour of ci/, with more values on top.

    Args:
        flavour: a file's name without `-values.yaml`.
        values: more of them; None removes one.
        crds: render the CRDs too: they are most of the text.
        options: `helm` (helm or helm3), `release`, `namespace`, `apis` (a tuple), `check` (ask for the kinds that are needed).

    Raises:
        Refused: Helm did.
    """
    asked: dict[str, Any] = _merge({} if crds else {"crds": {"install": False}}, values or {})
    if not options.get("check"):
        asked = _merge({"monitoring": {"disableAPICheck": True}}, asked)
    return _render(flavour, json.dumps(asked), tuple(sorted((key, value) for key, value in options.items() if key != "check")))


@cache
def _render(flavour: str, values: str, options: tuple[tuple[str, Any], ...]) -> Rendered:
    given = dict(options)
    return Rendered(tuple(one for one in yaml.load_all(manifest(flavour, values, **given), yaml.CSafeLoader) if one))


def manifest(
    flavour: str, values: str = "{}", *, helm: str = "helm", release: str = RELEASE, namespace: str = NAMESPACE, apis: tuple[str, ...] = ()
) -> str:
    """The text that Helm renders; `values` is JSON."""
    command = [
        str(binary(helm)),
        "template",
        release,
        str(CHART),
        "-n",
        namespace,
        "-f",
        str(CHART / "ci" / f"{flavour}-values.yaml"),
        "-f",
        "-",
    ]
    command += ["--kube-version", OLDEST, *(f"--api-versions={api}" for api in apis)]
    done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def refusal(flavour: str = "dev", values: Mapping[str, Any] | None = None, **options: Any) -> str:
    """What Helm says when it refuses."""
    try:
        render(flavour, values, **options)
    except Refused as error:
        return str(error)
    raise AssertionError("Helm took these values")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) else value
    return merged
