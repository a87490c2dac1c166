"""Documents become knowledge: by upload, inline, as text and by path, over MCP and REST."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import docx
import httpx
import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError

from tests.integration.conftest import Running, ended

HANDBOOK = "The night shift hands its keys to the warden at six in the morning."


def a_handbook() -> bytes:
    document = docx.Document()
    document.add_heading("Handbook", level=1)
    document.add_heading("Keys", level=2)
    document.add_paragraph(HANDBOOK)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


async def find(client: Client[Any], query: str, **more: Any) -> list[dict[str, Any]]:
    result = (await client.call_tool("qdrant_find", {"query": query, **more})).structured_content or {}
    return list(result["results"])


async def test_an_upload_through_a_one_time_url_is_found_with_its_heading_path(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client, httpx.AsyncClient() as http:
        upload = (await client.call_tool("create_upload", {"filename": "handbook.docx"})).structured_content or {}
        put = await http.put(upload["upload_url"], content=a_handbook())
        assert put.status_code == 200, put.text
        assert (await http.put(upload["upload_url"], content=b"again")).status_code == 404

        arguments = {"upload_id": upload["upload_id"], "source": "handbook", "metadata": {"team": "night"}}
        job = await ended(client, (await client.call_tool("ingest_doc", arguments)).data.job_id)
        assert job["status"] == "completed", job
        [hit, *_] = await find(client, "Who gets the keys in the morning?", filters={"metadata.team": "night"})
        assert HANDBOOK in hit["text"]
        assert hit["heading_path"] == ["Handbook", "Keys"]
        assert hit["source"] == "handbook"
        assert await find(client, "Who gets the keys in the morning?", filters={"metadata.team": "day"}) == []


async def test_the_same_source_replaces_the_document(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        for text in ("The gate opens at seven every morning.", "The gate opens at nine every morning."):
            job = await ended(client, (await client.call_tool("ingest_doc", {"text": text, "source": "gate"})).data.job_id)
            assert job["status"] == "completed", job
        listed = (await client.call_tool("list_documents", {})).structured_content or {}
        assert [document["source"] for document in listed["documents"]] == ["gate"]
        texts = [hit["text"] for hit in await find(client, "When does the gate open?")]
        assert len(texts) == 1
        assert "nine" in texts[0]


async def test_inline_content_and_notes_are_stored(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        inline = base64.b64encode(b"# Boiler\n\nThe boiler room is locked from ten at night until five in the morning.").decode()
        arguments = {"content_base64": inline, "filename": "boiler.md"}
        assert (await ended(client, (await client.call_tool("ingest_doc", arguments)).data.job_id))["status"] == "completed"
        note = (await client.call_tool("qdrant_store", {"text": "The spare fuse lies in the drawer below the clock."})).structured_content
        assert note is not None
        assert note["changed"] is True
        assert "boiler room" in (await find(client, "boiler room"))[0]["text"]
        [hit, *_] = await find(client, "Where is the spare fuse?", filters={"kind": "note"})
        assert "drawer below the clock" in hit["text"]


async def test_a_document_that_cannot_be_read_fails_with_its_own_reason(running: Running) -> None:
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        broken = base64.b64encode(a_handbook()[:900]).decode()
        arguments = {"content_base64": broken, "filename": "broken.docx"}
        job = await ended(client, (await client.call_tool("ingest_doc", arguments)).data.job_id)
        assert job["status"] == "failed"
        assert job["error"]["code"] == "document.corrupt"
        assert job["error"]["advice"]
        assert job["outcomes"][0]["code"] == "document.corrupt"


async def test_a_path_is_read_below_the_document_root_only(running: Running, tmp_path: Path) -> None:
    root = tmp_path / "documents"
    root.mkdir()
    (root / "rules.md").write_text("# Rules\n\nNobody enters the laboratory without safety goggles.")
    (tmp_path / "outside.md").write_text("not yours")
    async with running() as app, Client(f"{app.info.url}/mcp") as client:
        with pytest.raises(ToolError, match=r"document\.path_refused"):
            await client.call_tool("ingest_doc", {"path": "rules.md"})
    async with running(document_root=root) as app, Client(f"{app.info.url}/mcp") as client:
        job = await ended(client, (await client.call_tool("ingest_doc", {"path": "rules.md"})).data.job_id)
        assert job["status"] == "completed", job
        with pytest.raises(ToolError, match=r"document\.path_refused"):
            await client.call_tool("ingest_doc", {"path": "../outside.md"})
