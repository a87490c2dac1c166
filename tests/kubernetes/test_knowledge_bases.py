"""KnowledgeBases from kubectl to PostgreSQL: a real API server, a real operator, a real orchestrator with a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until
from shield_operator.api.knowledgebase import DELETE_FINALIZER
from shield_operator.cluster import KNOWLEDGEBASES, Obj
from tests.fleet import Fleet
from tests.kubernetes.operator_process import install_crds, running_operator
from tests.peers.embeddings import embedding_peer

NAMESPACE = "bases"
QUICK = {"base_interval": "0.5", "base_heartbeat": "2", "base_deletion_interval": "0.3", "base_retry_pause": "2", "backoff_most": "2"}


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> ControlPlane:
    install_crds(plane)
    with suppress(KubectlFailed):
        plane.kubectl("create", "namespace", NAMESPACE)
    return plane


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with embedding_peer() as peer:
        shadow = {"PROVIDER": "openai", "MODEL": "other-32", "DIM": "32", "BASE_URL": f"{peer.url}/v1", "API_KEY": "x"}
        fleet = Fleet(workers=1, mcp=False, environment={f"SHIELD_SHADOW_{name}": value for name, value in shadow.items()})
        try:
            await asyncio.to_thread(fleet.start)
            yield fleet
        finally:
            await asyncio.to_thread(fleet.close)


class Bases:
    """What people do and see."""

    def __init__(self, api: ControlPlane, fleet: Fleet) -> None:
        self.api, self.fleet = api, fleet

    async def apply(self, name: str, **spec: Any) -> None:
        meta = {"name": name, "namespace": NAMESPACE}
        body = {"apiVersion": KNOWLEDGEBASES.api_version, "kind": KNOWLEDGEBASES.kind, "metadata": meta, "spec": spec}
        await asyncio.to_thread(self.api.kubectl, "apply", "-f", "-", input=json.dumps(body))

    def one(self, name: str) -> Obj | None:
        found = self.api.get("knowledgebases", "-n", NAMESPACE)["items"]
        return next((item for item in found if item["metadata"]["name"] == name), None)

    def says(self, name: str, type_: str) -> tuple[str, str]:
        conditions = ((self.one(name) or {}).get("status") or {}).get("conditions") or ()
        return next(((each["status"], each["reason"]) for each in conditions if each["type"] == type_), ("", ""))

    def active(self, name: str) -> str:
        return str((((self.one(name) or {}).get("status") or {}).get("activeEmbedding") or {}).get("model"))

    async def until(self, what: str, ready: Callable[[], bool], limit: float = 90) -> None:
        await asyncio.to_thread(until, what, ready, limit=limit, pause=0.2)

    async def call(self, method: str, path: str, **body: Any) -> Any:
        async with httpx.AsyncClient(base_url=self.fleet.api_url, timeout=30) as client:
            answer = await client.request(method, path, json=body or None)
            return answer.json()

    async def fill(self, base: str, text: str) -> None:
        job = await self.call("POST", "/lightrag/ingest-async", knowledge_base=base, spec={"type": "document", "text": text})
        done = await self.call("GET", f"/jobs/{job['job_id']}?wait=45")
        assert done["status"] == "completed", done

    async def known(self) -> dict[str, int]:
        answer = await self.call("GET", "/knowledge-bases")
        return {item["name"]: item["documents"] for item in answer["knowledge_bases"]}


async def test_from_apply_over_a_move_and_back_to_a_proven_deletion(api: ControlPlane, fleet: Fleet, tmp_path: Path) -> None:
    bases = Bases(api, fleet)
    base = f"{NAMESPACE}--docs"
    with running_operator(api, NAMESPACE, tmp_path / "operator.log", orchestrator_url=fleet.api_url, **QUICK):
        await bases.apply("docs", graph=False, deletionPolicy="Delete", description="Pumps")
        await bases.until("Ready", lambda: bases.says("docs", "Ready") == ("True", "Available"))
        made = bases.one("docs")
        assert made is not None
        assert made["metadata"]["finalizers"] == [DELETE_FINALIZER]
        assert made["status"]["knowledgeBase"] == base
        for number in range(3):
            await bases.fill(base, f"# Pump {number}\n\nThe pump {number} shows the fault E47{number}1 when its valve is stuck.")
        await bases.until("the counts", lambda: (bases.one("docs") or {})["status"].get("documents") == 3)

        await bases.apply("docs", graph=False, deletionPolicy="Delete", embedding={"model": "other-32", "dimension": 32})
        await bases.until("the move", lambda: bases.active("docs") == "other-32" or bases.says("docs", "Reindexing")[1] == "Differs")
        if bases.says("docs", "Reindexing")[1] == "Differs":  # the peer's vectors are not the model's: an administrator decides
            await bases.call("POST", f"/knowledge-bases/{base}/flip")
        await bases.until("the flip", lambda: bases.says("docs", "Reindexing") == ("False", "UpToDate"))
        assert bases.active("docs") == "other-32"

        await bases.apply("docs", graph=False, deletionPolicy="Delete", embedding={"model": "all-minilm-l6-v2", "dimension": 384})
        await bases.until("the rollback", lambda: bases.active("docs") == "all-minilm-l6-v2", limit=20)
        assert (await bases.known())[base] == 3

        await asyncio.to_thread(
            api.kubectl, "-n", NAMESPACE, "delete", "knowledgebase", "docs", "--wait=true", "--timeout=90s", timeout=100
        )
        assert base not in await bases.known()

        await bases.apply("kept", graph=False)
        await bases.until("Ready", lambda: bases.says("kept", "Ready") == ("True", "Available"))
        await asyncio.to_thread(api.kubectl, "-n", NAMESPACE, "delete", "knowledgebase", "kept", "--wait=true", "--timeout=30s")
        assert f"{NAMESPACE}--kept" in await bases.known()


async def test_with_the_orchestrator_down_the_object_stays_until_it_is_back(api: ControlPlane, fleet: Fleet, tmp_path: Path) -> None:
    bases = Bases(api, fleet)
    base = f"{NAMESPACE}--patient"
    with running_operator(api, NAMESPACE, tmp_path / "operator.log", orchestrator_url=fleet.api_url, **QUICK):
        await bases.apply("patient", graph=False, deletionPolicy="Delete")
        await bases.until("Ready", lambda: bases.says("patient", "Ready") == ("True", "Available"))
        fleet.apis[0].kill()
        await asyncio.to_thread(api.kubectl, "-n", NAMESPACE, "delete", "knowledgebase", "patient", "--wait=false")
        await bases.until("the reason", lambda: bases.says("patient", "Ready") == ("False", "OrchestratorUnavailable"))
        await asyncio.to_thread(fleet.apis[0].start)
        await bases.until("it to go", lambda: bases.one("patient") is None)
        assert base not in await bases.known()
