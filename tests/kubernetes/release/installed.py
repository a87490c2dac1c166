"""One Helm release of Shield on the local cluster, and what tests ask about it."""

from __future__ import annotations

import json
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from images.catalogue import SERVER, version
from kind.binaries import binary
from kind.cluster import Cluster
from shield.database.migrate import HEAD
from tests.kubernetes.release.addons import GATEWAY
from tests.kubernetes.release.traffic import Target
from tests.kubernetes.release.variants import PACKAGE, push_variant

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "shield"
LOCAL = CHART / "ci" / "local-values.yaml"
NAMESPACE, NAME, HOST = "shield", "shield", "shield.test"
NEXT, BROKEN, GROWN = "0.2.1", "0.2.2-broken", "0.3.0"
"""Tags of later versions: one that works, one that fails every call, and one whose schema is newer."""
GROWN_SCHEMA = """
from alembic import op

revision, down_revision = "9999", "{before}"


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN later text")
    op.execute("UPDATE schema_version SET version = '9999'")
"""


class HelmFailed(AssertionError):
    """Helm said no."""


@dataclass(frozen=True)
class Release:
    """The release `shield` in the namespace `shield`."""

    cluster: Cluster
    gateway: str
    prometheus: str
    helm_program: str = "helm"

    def helm(self, *arguments: str, seconds: float = 400) -> str:
        """What Helm prints.

        Raises:
            HelmFailed: it said no, or took too long.
        """
        options = ["--namespace", NAMESPACE, "--kubeconfig", str(self.cluster.kubeconfig)]
        try:
            done = subprocess.run(
                [str(binary(self.helm_program)), *arguments, *options], capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise HelmFailed(f"helm {' '.join(arguments)} took longer than {seconds:.0f} s\n{self.told()}") from None
        if done.returncode:
            raise HelmFailed(f"helm {' '.join(arguments)}: {done.stderr}\n{self.told()}")
        return done.stdout

    def install(self, *options: str) -> str:
        """Install or upgrade it with the values of the local cluster; returns when it is ready."""
        registry = self.cluster.addresses.registry
        images = ["--set", f"imageRegistry={registry}", "--set", f"global.imageRegistry={registry}"]
        return self.helm("upgrade", "--install", NAME, str(CHART), "-f", str(LOCAL), *images, *options, "--wait", "--timeout", "6m")

    def change(self, *options: str) -> str:
        """`helm upgrade --reuse-values`, until it is ready."""
        return self.helm("upgrade", NAME, str(CHART), "--reuse-values", *options, "--wait", "--timeout", "6m")

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002  as kubectl's own
        """In the release's namespace."""
        return self.cluster.kubectl.run("-n", NAMESPACE, *arguments, input=input, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def key(self, name: str = "admin") -> str:
        """One of the API keys that the release made."""
        return b64decode(self.get("secret", "shield-keys")["data"][name]).decode()

    def target(self, **headers: str) -> Target:
        """The MCP endpoint at the gateway, as an administrator."""
        return Target(self.gateway, HOST, self.key(), {name.replace("_", "-"): value for name, value in headers.items()})

    def answered(self, track: str, tool: str) -> float:
        """How many calls of a tool the pods of a track have ended, by their own metrics."""
        total = 0.0
        for pod in self.pods("mcp"):
            labels = pod["metadata"]["labels"]
            if labels.get("track", "stable") != track or not pod["status"].get("podIP"):
                continue
            text = httpx.get(f"http://{pod['status']['podIP']}:9090/metrics", trust_env=False, timeout=10).text
            for family in text_string_to_metric_families(text):
                total += sum(
                    sample.value
                    for sample in family.samples
                    if sample.name == "tool_calls_total"
                    and sample.labels["tool_name"] == tool
                    and sample.labels["status"] in {"success", "error"}
                )
        return total

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Its pods that are not on their way out."""
        found = self.get("pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, trust_env=False, timeout=10)
        return list(answer.raise_for_status().json()["data"]["result"])

    def alerts(self) -> dict[str, str]:
        """State by name of the alerts that are pending or firing."""
        answer = httpx.get(f"{self.prometheus}/api/v1/alerts", trust_env=False, timeout=10)
        return {item["labels"]["alertname"]: item["state"] for item in answer.raise_for_status().json()["data"]["alerts"]}

    def schema(self) -> str:
        """The number of the schema that the database stands at."""
        told = self.kubectl("exec", "deployment/shield-api", "--", "shield", "db", "status", "--json")
        return str(json.loads(told)["schema_version"])

    def lost(self) -> str:
        """What the gateway says of requests that it could not have answered well, the last ones."""
        return self.cluster.kubectl.run("logs", "-n", GATEWAY, "deployment/traefik", "--tail=40")

    def told(self) -> str:
        """What a person would look at."""
        looks = (("get", "pods,jobs", "-o", "wide"), ("get", "events", "--sort-by=.lastTimestamp"))
        return "\n".join(self.kubectl(*arguments)[-4000:] for arguments in looks)

    def make_variants(self) -> None:
        """Push the later versions."""
        registry = self.cluster.addresses.registry
        source = ROOT / "src" / "shield"
        package = (source / "__init__.py").read_text(encoding="utf-8")
        boundary = (source / "mcp" / "boundary.py").read_text(encoding="utf-8")
        migrate = (source / "database" / "migrate.py").read_text(encoding="utf-8")
        call, head = "                    result = await call_next(context)", f'HEAD = "{HEAD}"'
        if boundary.count(call) != 1 or migrate.count(head) != 1 or f'"{version()}"' not in package:
            raise AssertionError("the server's sources changed: say anew where a call can be made to fail")
        works = {f"{PACKAGE}/__init__.py": package.replace(f'"{version()}"', f'"{NEXT}"')}
        grows = {
            f"{PACKAGE}/__init__.py": package.replace(f'"{version()}"', f'"{GROWN}"'),
            f"{PACKAGE}/database/migrate.py": migrate.replace(head, 'HEAD = "9999"'),
            f"{PACKAGE}/database/migrations/versions/9999_later.py": GROWN_SCHEMA.format(before=HEAD),
        }
        fails = {f"{PACKAGE}/mcp/boundary.py": boundary.replace(call, '                    raise RuntimeError("broken on purpose")')}
        push_variant(registry, SERVER.name, version(), NEXT, works)
        push_variant(registry, SERVER.name, version(), BROKEN, fails)
        push_variant(registry, SERVER.name, version(), GROWN, grows)


@contextmanager
def shield(release: Release, *arguments: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A `shield` command of this checkout, as an operator's machine would run it; what it prints goes to `log`. Interrupted at the end if it runs."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(log.parent), "KUBECONFIG": str(release.cluster.kubeconfig)}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(ROOT / ".venv" / "bin" / "shield"), *arguments], env=environment, stdout=output, stderr=output, text=True, cwd=log.parent
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=120)  # it takes the canary back first


def wait(process: subprocess.Popen[str], seconds: float, log: Path) -> int:
    """Its exit code.

    Raises:
        AssertionError: it did not end in time.
    """
    began = time.monotonic()
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it did not end within {time.monotonic() - began:.0f} s:\n{log.read_text(encoding='utf-8')}") from None


def rollout_arguments(release: Release, tag: str, *, interval: float, hold: float, steps: Sequence[int] = (10, 50, 100)) -> list[str]:
    """Of `shield rollout`."""
    steps_given = [word for step in steps for word in ("--step", str(step))]
    return [
        "rollout", NAME, "-n", NAMESPACE, "--chart", str(CHART), "--prometheus", release.prometheus, "--tag", tag, *steps_given,
        "--interval", str(interval), "--hold", str(hold), "--patience", "300", "--journal", "rollout.jsonl", "--helm", str(binary("helm")),
    ]  # fmt: skip
