"""The index of a knowledge base over REST, in the whole process: check, rebuild, reindex to a second model, rollback."""

from __future__ import annotations

from typing import Any

import httpx

from tests.integration.conftest import Running
from tests.peers.embeddings import embedding_peer

NOTE = "The night shift hands its keys to the warden at six in the morning."
OTHER = "The cooling pump of hall three is restarted by the mechanic on duty."


async def ended(http: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(20):
        answer = (await http.get(job["status_url"], params={"wait": 30})).json()
        if answer["finished_at"] is not None:
            return dict(answer)
    raise AssertionError(f"the job did not end: {answer}")


async def found(http: httpx.AsyncClient, query: str) -> list[str]:
    return [hit["text"] for hit in (await http.post("/find", json={"query": query})).json()["results"]]


async def test_a_base_with_a_graph_is_moved_restored_and_moved_back_over_rest(running: Running) -> None:
    async with embedding_peer() as peer:
        shadow = {"provider": "openai", "model": "other-24", "dim": 24, "base_url": peer.url}
        async with running(shadow=shadow) as app, httpx.AsyncClient(base_url=app.info.url, timeout=60) as http:
            for text in (NOTE, OTHER):
                assert (await http.post("/notes", json={"text": text})).status_code == 200
            listed = (await http.get("/knowledge-bases/default/collections")).json()["collections"]
            assert [(item["model"], item["state"]) for item in listed] == [("all-minilm-l6-v2", "live")]
            assert (await http.get("/knowledge-bases/default/check")).json()["ok"]
            refused = await http.post("/knowledge-bases/default/reindex", json={"model": "unheard-of", "dim": 16})
            assert (refused.status_code, refused.json()["code"]) == (503, "dependency.misconfigured")
            refused = await http.post("/knowledge-bases/default/rollback")
            assert (refused.status_code, refused.json()["code"]) == (409, "kb.nothing_to_flip")

            body = {"model": "other-24", "dim": 24, "questions": ["Who restarts the cooling pump?"]}
            accepted = await http.post("/knowledge-bases/default/reindex", json=body)
            assert (accepted.status_code, accepted.json()["kind"]) == (202, "reindex")
            job = await ended(http, accepted.json())
            assert (job["status"], job["outcome"], job["progress"]["documents"]) == ("completed", "complete", 2)
            listed = (await http.get("/knowledge-bases/default/collections")).json()["collections"]
            assert [(item["model"], item["state"]) for item in listed] == [("other-24", "live"), ("all-minilm-l6-v2", "retired")]
            assert listed[0]["report"]["questions"] == 1
            assert (await found(http, "cooling pump"))[0] == OTHER
            answer = (await http.post("/lightrag/query", json={"query": "Who restarts the cooling pump?", "mode": "mix"})).json()
            assert (answer["found"], answer["degraded"]) == (True, None)  # its graph answers as before

            rebuilt = await ended(http, (await http.post("/knowledge-bases/default/rebuild", json={"fresh": True})).json())
            assert (rebuilt["kind"], rebuilt["outcome"]) == ("rebuild", "complete")
            checked = (await http.get("/knowledge-bases/default/check")).json()
            assert [(item["state"], item["missing"]) for item in checked["collections"]] == [("live", 0), ("retired", 0)]

            back = (await http.post("/knowledge-bases/default/rollback")).json()["collections"]
            assert (back[0]["model"], back[0]["state"]) == ("all-minilm-l6-v2", "live")
            assert (await found(http, "cooling pump"))[0] == OTHER
            assert len((await http.post("/knowledge-bases/default/discard")).json()["collections"]) == 2  # gone with the next sweep
