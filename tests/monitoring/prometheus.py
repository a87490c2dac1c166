"""A Prometheus of our own: on loopback, its data in a temporary directory, scraping what it is told every second."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fleet.members import Member, answers, free_port
from tests.monitoring.cases import NAMESPACE

_LIMIT = 10.0  # seconds for one answer


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    async def query(self, expr: str) -> list[float]:
        """The values of an instant query, NaN left out.

        Raises:
            urllib.error.HTTPError: the query is wrong.
        """
        answer = await self._get("query", query=expr)
        result = answer["result"]
        values = [result[1]] if answer["resultType"] == "scalar" else [sample["value"][1] for sample in result]
        return [float(value) for value in values if value != "NaN"]

    async def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        answer = await self._get("alerts")
        return {alert["labels"]["alertname"] for alert in answer["alerts"] if alert["state"] == "firing"}

    async def down(self) -> list[str]:
        """Targets that did not answer the last scrape, with the reason."""
        answer = await self._get("targets", state="active")
        return [
            f"{one['labels']['job']} {one['scrapeUrl']}: {one['lastError']}" for one in answer["activeTargets"] if one["health"] != "up"
        ]

    async def broken(self) -> list[str]:
        """Rules whose last evaluation failed, with the reason."""
        answer = await self._get("rules")
        return [f"{rule['name']}: {rule['lastError']}" for group in answer["groups"] for rule in group["rules"] if rule.get("lastError")]

    async def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"

        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(url, timeout=_LIMIT) as reply:  # noqa: S310  our own address
                data: dict[str, Any] = json.load(reply)["data"]
                return data

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def prometheus(
    program: Path, directory: Path, rules: str, targets: Mapping[str, Sequence[str]], labels: Mapping[str, Mapping[str, str]]
) -> AsyncIterator[Prometheus]:
    """Run it inside the block.

    Args:
        program: the binary.
        directory: for its data and log.
        rules: a file of rules; all groups are evaluated every two seconds.
        targets: addresses of metrics by job.
        labels: more labels of a job's series, beside the namespace.
    """
    groups = [{**group, "interval": "2s"} for group in yaml.safe_load(rules)["groups"]]
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    scrapes = [
        {"job_name": job, "static_configs": [{"targets": list(where), "labels": {"namespace": NAMESPACE, **labels.get(job, {})}}]}
        for job, where in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "2s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": scrapes,
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    member = Member(
        "prometheus",
        [
            str(program),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        directory / "prometheus.log",
        ready=answers(f"http://127.0.0.1:{port}/-/ready"),
        cwd=directory,
    )
    try:
        await asyncio.to_thread(member.start, within=60)
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        await asyncio.to_thread(member.destroy)
