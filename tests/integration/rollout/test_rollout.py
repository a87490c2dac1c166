"""What a rollout asks of others: Prometheus over HTTP, and Helm as a program."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shield.errors import ConfigInvalid, RolloutBlind, RolloutRefused
from shield.rollout.evidence import CALLS, EMPTY, ERRORS, P95, Prometheus
from shield.rollout.golden import Question, read_questions
from shield.rollout.helm import Helm
from shield.rollout.judge import Track

SERIES: dict[str, list[tuple[dict[str, str], str]]] = {
    CALLS: [({"track": "stable"}, "9"), ({"track": "canary"}, "1")],
    ERRORS: [({"track": "stable"}, "0"), ({"track": "canary"}, "0.5")],
    P95: [({"track": "stable", "class": "query"}, "0.4"), ({"track": "canary", "class": "query"}, "NaN")],
    EMPTY: [({"track": "stable"}, "0.25")],
}


@pytest.fixture
async def prometheus() -> AsyncIterator[TestServer]:
    async def query(request: web.Request) -> web.Response:
        asked = request.query["query"]
        record, _, selector = asked.partition("{")
        assert selector == 'namespace="shield"}'
        result = [{"metric": labels, "value": [0, value]} for labels, value in SERIES[record]]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    app = web.Application()
    app.router.add_get("/api/v1/query", query)
    server = TestServer(app)
    async with server:
        yield server


async def test_both_tracks_are_read_and_what_is_no_number_is_none(prometheus: TestServer) -> None:
    async with Prometheus(str(prometheus.make_url("")), "shield") as evidence:
        stable, canary = await evidence.look()
    assert stable == Track(9, 0, {"query": 0.4}, 0.25)
    assert canary == Track(1, 0.5, {}, None)


async def test_a_prometheus_that_is_away_or_talks_of_something_else_is_blindness(prometheus: TestServer) -> None:
    async with Prometheus("http://127.0.0.1:1", "shield") as evidence:
        with pytest.raises(RolloutBlind):
            await evidence.look()
    async with Prometheus(str(prometheus.make_url("/other")), "shield") as evidence:
        with pytest.raises(RolloutBlind, match="404"):
            await evidence.look()


SCRIPT = """#!/bin/sh
echo "$@" >> "{log}"
case "$1" in
  history) echo '[{{"revision": 4}}]' ;;
  get) echo '{{"canary": {{"mode": "static"}}}}' ;;
  upgrade) case "$*" in *weight=66*) echo "Error: UPGRADE FAILED: not ready" >&2; exit 1 ;; esac ;;
esac
"""


@pytest.fixture
def helm(tmp_path: Path) -> tuple[Helm, Path]:
    program, log = tmp_path / "helm", tmp_path / "log"
    program.write_text(SCRIPT.format(log=log))
    program.chmod(0o755)
    return Helm("shield", "prod", "oci://charts/shield", str(program), ("--kube-context=x",), limit=20), log


async def test_helm_is_asked_for_one_change_at_a_time_and_waits_for_it(helm: tuple[Helm, Path]) -> None:
    program, log = helm
    assert await program.revision() == 4
    assert (await program.values())["canary"] == {"mode": "static"}
    await program.set({"canary.weight": 10, "canary.image.tag": "1.10"}, "rollout: 10 %")
    await program.roll_back(4)
    changes, where = "--set canary.weight=10 --set-string canary.image.tag=1.10", "--namespace prod --kube-context=x"
    assert log.read_text().splitlines()[2:] == [
        f"upgrade shield oci://charts/shield --reuse-values {changes} --wait --timeout 20s --description rollout: 10 % {where}",
        f"rollback shield 4 --wait --timeout 20s {where}",
    ]


async def test_what_helm_refuses_is_said_in_its_words(helm: tuple[Helm, Path]) -> None:
    with pytest.raises(RolloutRefused, match="UPGRADE FAILED: not ready"):
        await helm[0].set({"canary.weight": 66}, "rollout: 66 %")


async def test_a_helm_that_is_not_there_is_said() -> None:
    with pytest.raises(RolloutRefused, match="cannot be run"):
        await Helm("shield", "prod", "x", "/nowhere/helm").revision()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"query": "a"}]', '[{"query": "a", "source": "b", "other": "c"}]'])
def test_a_file_that_holds_no_golden_questions_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "golden.json"
    path.write_text(content)
    with pytest.raises(ConfigInvalid, match="no file of golden questions"):
        read_questions(path)


def test_golden_questions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text('[{"query": "Where?", "source": "text:1", "knowledge_base": "docs"}]')
    assert read_questions(path) == (Question("Where?", "text:1", "docs"),)
