"""Each way in which an installation may fail its smoke test, and that nothing of a run stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shield.app import smoke
from shield.app.smoke import Smoke, SmokeFailed, ToolRefused, Unanswered, mcp_tools


class Server:
    """Tools that do what they should, but for what a test breaks."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.status = {"ingest_doc": "completed", "delete_document": "completed"}
        self.fails: dict[str, list[Exception]] = {}
        self.deaf = False
        self.forgetful = False
        self.calls: list[str] = []
        self._jobs: dict[str, str] = {}

    async def __call__(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(name)
        if waiting := self.fails.get(name):
            raise waiting.pop(0)
        match name:
            case "ingest_doc":
                self.texts[arguments["source"]] = arguments["text"]
            case "delete_document":
                if not self.forgetful:
                    self.texts.pop(arguments["document_id"], None)
            case "get_job_status":
                status = self._jobs[arguments["job_id"]]
                if status == "never":
                    await asyncio.Event().wait()
                return {"status": status, "error": {"message": "no disk"} if status == "failed" else None}
            case "qdrant_find":
                found = [{"text": text, "source": source, "document_id": source} for source, text in self.texts.items()]
                return {"results": [] if self.deaf else found}
            case "list_documents":
                return {"documents": [{"document_id": one} for one in self.texts if one.startswith(arguments["source_prefix"])]}
            case _:
                return {}
        self._jobs[f"of {name}"] = self.status[name]
        return {"job_id": f"of {name}"}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "_AGAIN", 0.001)
    monkeypatch.setattr(smoke, "_CLEAN_UP", 0.2)


async def run(server: Server, within: float = 5) -> list[str]:
    said: list[str] = []
    await Smoke(server, said.append).run(within)
    return said


async def test_a_text_is_ingested_found_and_deleted(server: Server) -> None:
    said = await run(server)
    assert [step.split()[0] for step in said] == ["the", "ingested", "found", "deleted", "deleted,"]
    assert server.texts == {}


async def test_a_server_that_is_not_up_yet_is_waited_for(server: Server) -> None:
    server.fails["list_knowledge_bases"] = [Unanswered("refused"), Unanswered("401")]
    assert len(await run(server)) == 5


async def test_a_server_that_never_comes_is_told_with_the_last_reason(server: Server) -> None:
    server.fails["list_knowledge_bases"] = [Unanswered("nobody there")] * 10_000
    with pytest.raises(SmokeFailed, match=r"not done within 0.05 s; the MCP server did not answer: nobody there"):
        await run(server, within=0.05)


async def test_a_server_that_goes_away_is_told(server: Server) -> None:
    server.fails["qdrant_find"] = [Unanswered("gone")]
    with pytest.raises(SmokeFailed, match=r"does not answer any more: gone"):
        await run(server)
    assert server.texts == {}


async def test_a_refusal_is_told_with_the_tools_own_words(server: Server) -> None:
    server.fails["ingest_doc"] = [ToolRefused("No such base [kb.not_found]")]
    with pytest.raises(SmokeFailed, match=r"ingest_doc was refused: No such base"):
        await run(server)


async def test_a_job_that_fails_is_told_and_leaves_nothing(server: Server) -> None:
    server.status["ingest_doc"] = "failed"
    with pytest.raises(SmokeFailed, match=r"job of ingest_doc is failed: no disk"):
        await run(server)
    assert server.texts == {}


async def test_a_text_that_is_not_found_is_a_failure_and_leaves_nothing(server: Server) -> None:
    server.deaf = True
    with pytest.raises(SmokeFailed, match="does not find it"):
        await run(server)
    assert server.texts == {}


async def test_a_text_that_is_found_after_its_deletion_is_a_failure(server: Server) -> None:
    server.forgetful = True
    with pytest.raises(SmokeFailed, match="still finds it"):
        await run(server)


async def test_a_job_that_does_not_end_in_time_is_a_failure_and_leaves_nothing(server: Server) -> None:
    server.status["ingest_doc"] = "never"
    with pytest.raises(SmokeFailed, match=r"not done within 0.05 s$"):
        await run(server, within=0.05)
    assert server.texts == {}


async def test_what_cannot_be_removed_is_told(server: Server) -> None:
    server.status["ingest_doc"] = "failed"
    server.fails["list_documents"] = [Unanswered("gone")]
    said: list[str] = []
    with pytest.raises(SmokeFailed):
        await Smoke(server, said.append).run(5)
    assert said[-1].endswith("may be left behind: gone")


async def test_nobody_at_the_address_is_no_answer() -> None:
    with pytest.raises(Unanswered):
        await mcp_tools("http://127.0.0.1:9/mcp", None)("list_knowledge_bases", {})
