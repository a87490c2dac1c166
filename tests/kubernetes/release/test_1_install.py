"""From a cluster without Shield to an answer found again, in less than three minutes; and what an installation must not show."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import httpx

from kind.waiting import until
from tests.kubernetes.release.conftest import VALUES
from tests.kubernetes.release.installed import NAMESPACE, ROOT, Release

Record = Callable[[str, object], None]
WITHIN = 180.0
"""Seconds from `helm install` to a passed `helm test`, with images in the registry."""


def test_it_is_installed_and_answers_within_three_minutes(bare: Release, record_property: Record) -> None:
    bare.cluster.kubectl.run("create", "namespace", NAMESPACE)
    bare.cluster.kubectl.run("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    began = time.monotonic()
    bare.install(*VALUES)
    installed = time.monotonic() - began
    said = bare.helm("test", "shield", "--logs")
    tested = time.monotonic() - began
    record_property("helm install, s", round(installed, 1))
    record_property("to a passed helm test, s", round(tested, 1))
    assert "it works" in said
    assert tested < WITHIN


def test_its_alerts_and_monitors_reach_prometheus(release: Release) -> None:
    until(
        "all processes are scraped",
        lambda: _up(release) >= {"shield-mcp", "shield-api", "shield-worker", "shield-operator", "shield-probe"},
        limit=90,
    )
    rules = httpx.get(f"{release.prometheus}/api/v1/rules", trust_env=False, timeout=10).json()["data"]["groups"]
    alerts = [rule for group in rules for rule in group["rules"] if rule["type"] == "alerting"]
    assert len(alerts) > 30
    unsound = [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"]
    assert unsound == []


def _up(release: Release) -> set[str]:
    return {item["metric"]["job"] for item in release.query("up == 1")}


def test_every_example_is_applied_as_it_is(release: Release) -> None:
    for file in sorted((ROOT / "docs" / "examples").glob("*.yaml")):
        release.kubectl("apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", str(file))
    release.kubectl("apply", "-f", str(ROOT / "docs" / "examples" / "knowledgebase.yaml"))
    release.kubectl("wait", "--for=condition=Ready", "knowledgebase/handbook", "--timeout=60s", timeout=70)


def test_no_secret_stands_where_it_can_be_read_and_no_password_is_a_default(release: Release) -> None:
    secrets = _secrets(release)
    assert len(secrets) >= 8
    assert [name for name, value in secrets.items() if len(value) < 20] == []
    readable = {
        "ConfigMaps": release.kubectl("get", "configmaps", "-o", "json"),
        "pods": release.kubectl("get", "pods", "-o", "json"),
        "Deployments, StatefulSets, Jobs": release.kubectl("get", "deployments,statefulsets,jobs", "-o", "json"),
        "events": release.kubectl("get", "events", "-o", "json"),
        "the release's manifest": release.helm("get", "all", "shield"),
        "logs": _logs(release),
        "job rows": release.kubectl("exec", "deploy/shield-api", "--", "python", "-c", _ROWS),
        "Redis": release.kubectl("exec", "deploy/shield-api", "--", "python", "-c", _REDIS),
    }
    assert len(readable["logs"]) > 1000
    assert "status" in readable["job rows"]
    found = [(name, place) for place, text in readable.items() for name, value in secrets.items() if value in text]
    assert found == []


def test_without_a_key_nothing_is_answered(release: Release) -> None:
    for path in ("/mcp", "/jobs", "/knowledge-bases"):
        answer = httpx.get(f"{release.gateway}{path}", headers={"Host": "shield.test"}, trust_env=False, timeout=10)
        assert answer.status_code == httpx.codes.UNAUTHORIZED, path


def _secrets(release: Release) -> dict[str, str]:
    """What is secret, by where it stands: passwords, keys, and passwords inside addresses."""
    found = {}
    for item in release.get("secrets")["items"]:
        if item["type"] != "Opaque":
            continue  # Helm's own record of the release
        for name, encoded in item.get("data", {}).items():
            value = b64decode(encoded).decode()
            password = httpx.URL(value).password if "://" in value else value
            if password:
                found[f"{item['metadata']['name']}/{name}"] = password
    return found


def _logs(release: Release) -> str:
    pods: list[dict[str, Any]] = release.get("pods")["items"]
    return "".join(release.kubectl("logs", pod["metadata"]["name"], "--all-containers", "--tail=2000") for pod in pods)


_ROWS = """
import asyncio, os, sys
import asyncpg
async def main():
    connection = await asyncpg.connect(os.environ["SHIELD_POSTGRES_DSN"])
    for row in await connection.fetch("SELECT to_jsonb(jobs)::text AS row FROM jobs"):
        print(row["row"])
asyncio.run(main())
"""
_REDIS = """
import os
import redis
client = redis.Redis.from_url(os.environ["SHIELD_REDIS_URL"])
for key in client.scan_iter():
    print(key, client.dump(key))
"""
