"""`make proof-monitoring`: every alert under promtool, every panel against a Prometheus that scraped a real run, a runbook for each alert.

The rules are those that the chart renders. With `--sabotage` three things are broken first, in copies: an alert's threshold, a panel's query, a
runbook; the proof must notice each.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from kind.binaries import binary
from monitoring.generate import HERE
from tests.monitoring import cases
from tests.monitoring.deployed import ROOT, jobs_of, rendered, rules_of
from tests.monitoring.panels import Panel, panels
from tests.monitoring.stage import Stage, stage

PATIENCE = 90.0
"""Seconds within which one more of the lacking panels must get data, or the others are given up."""
_ALONE = 15.0  # seconds between two looks at the panels that lack data
_PARTS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


@dataclass
class Verdict:
    """What was right, of how many, and what was not."""

    what: str
    total: int
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.what} {self.total - len({line.partition(':')[0] for line in self.wrong})}/{self.total}"


@dataclass(frozen=True)
class Material:
    """What is judged."""

    rules: str
    boards: Path
    runbooks: Path


def prove(*, sabotage: bool) -> bool:
    """Print what was found; whether all is well (with sabotage: whether each harm was noticed)."""
    with tempfile.TemporaryDirectory(prefix="shield-proof-monitoring-") as name:
        directory = Path(name)
        objects = rendered(binary("helm"))
        material = Material(rules_of(objects), HERE / "dashboards", ROOT / "docs/runbooks")
        if sabotage:
            material = _broken(material, directory)
        verdicts = [runbooks(material), alerts(material, directory), asyncio.run(shown(material, directory, jobs_of(objects)))]
    for verdict in verdicts:
        for line in verdict.wrong:
            print(f"  {verdict.what}: {line}")
    print("; ".join(str(verdict) for verdict in reversed(verdicts)))
    if sabotage:
        return all(len(verdict.wrong) == 1 for verdict in verdicts)
    return not any(verdict.wrong for verdict in verdicts)


def runbooks(material: Material) -> Verdict:
    """Each alert's runbook is there and has its four parts."""
    names = sorted(cases.alerts_in(cases.groups_of(material.rules)))
    verdict = Verdict("runbooks", len(names))
    for name in names:
        path = material.runbooks / f"{name}.md"
        parts = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else []
        if parts != _PARTS:
            verdict.wrong.append(f"{name}: {'has ' + ', '.join(parts) if parts else 'there is none'}")
    return verdict


def alerts(material: Material, directory: Path) -> Verdict:
    """Each alert is quiet, fires and recovers; nobody is woken for nothing."""
    began = time.monotonic()
    promtool = binary("promtool")
    groups = cases.groups_of(material.rules)
    told = cases.cases()
    names = sorted(cases.alerts_in(groups))
    verdict = Verdict("alerts", len(names))
    file = directory / "deployed.yml"
    file.write_text(material.rules, encoding="utf-8")
    if complaint := cases.check(promtool, file):
        verdict.wrong.append(f"promtool check rules: {complaint}")
    verdict.wrong += [f"{name}: has no case" for name in names if name not in told]
    verdict.wrong += [f"{name}: is not deployed" for name in told if name not in names]

    def one(alert: str, case: cases.Case) -> str:
        with tempfile.TemporaryDirectory(dir=directory) as place:
            complaint = cases.judge(promtool, Path(place), groups, case, alert)
        return f"{alert}: {case.about or case.window}\n{complaint}" if complaint else ""

    def story(told: cases.Nobody) -> str:
        with tempfile.TemporaryDirectory(dir=directory) as place:
            complaint = cases.judge_nobody(promtool, Path(place), groups, told)
        return f"nobody is to be woken by {told.about}: {complaint}" if complaint else ""

    with ThreadPoolExecutor(2) as pool:
        judged = [pool.submit(one, alert, case) for alert, some in told.items() for case in some]
        judged += [pool.submit(story, told) for told in cases.nobody()]
        verdict.wrong += [found for future in judged if (found := future.result())]
    print(
        f"  {sum(map(len, told.values()))} cases of {len(names)} alerts, {len(cases.nobody())} stories that wake nobody: {time.monotonic() - began:.0f} s"
    )
    return verdict


async def shown(material: Material, directory: Path, jobs: set[str]) -> Verdict:
    """Each query of each panel has data, in a Prometheus that scraped a real run by the names of the chart's ServiceMonitors."""
    began = time.monotonic()
    wanted = list(panels(material.boards))
    rules = material.rules.replace("__NAMESPACE__", cases.NAMESPACE)
    async with stage(directory, binary("prometheus"), rules) as running:
        print(f"  fleet, operator, probe and Prometheus run after {time.monotonic() - began:.0f} s", flush=True)
        working = asyncio.create_task(running.work())
        try:
            lacking = await _until_all(running, wanted, working)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        wrong = [f"{panel.name}: no data for {expr}" for panel, expr in lacking]
        wrong += await running.prometheus.broken()
        if missing := jobs - await _seen(running):
            wrong.append(f"jobs that the chart scrapes and this run lacks: {', '.join(sorted(missing))}")
        print(f"  {running.rounds} rounds of work, {time.monotonic() - began:.0f} s")
    return Verdict("panels with data", len(wanted), wrong)


async def _until_all(running: Stage, wanted: Sequence[Panel], working: asyncio.Task[None]) -> list[tuple[Panel, str]]:
    """Look again and again at what lacks data; what still does in the end."""
    lacking = [(panel, expr) for panel in wanted for expr in panel.queries]
    until = time.monotonic() + PATIENCE
    while lacking and time.monotonic() < until:
        if working.done():
            working.result()
        await asyncio.wait({working}, timeout=_ALONE)
        still = [(panel, expr) for panel, expr in lacking if not await running.prometheus.query(expr)]
        if len(still) < len(lacking):
            until = time.monotonic() + PATIENCE
        lacking = still
    return lacking


async def _seen(running: Stage) -> set[str]:
    jobs = ("shield-mcp", "shield-api", "shield-worker", "shield-operator", "shield-probe")
    return {job for job in jobs if any(value == 1 for value in await running.prometheus.query(f'up{{job="{job}"}}'))}


def _broken(material: Material, directory: Path) -> Material:
    """A threshold ten times too high, a series that does not exist, a runbook without its last part."""
    rules = yaml.safe_load(material.rules)
    queue = next(rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == "ShieldQueueLong")
    queue["expr"] = queue["expr"].replace("> 100", "> 1000")
    boards = Path(shutil.copytree(material.boards, directory / "boards"))
    board = boards / "circuit-breaker.json"
    board.write_text(
        board.read_text(encoding="utf-8").replace("sum(shield_dependency_misconfigured{", "sum(shield_dependency_miscofigured{"),
        encoding="utf-8",
    )
    books = Path(shutil.copytree(material.runbooks, directory / "runbooks"))
    page = books / "ShieldDeadJobs.md"
    page.write_text(page.read_text(encoding="utf-8").partition("## Mitigation")[0], encoding="utf-8")
    return Material(yaml.safe_dump(rules), boards, books)
