"""One data directory, many clients: a server, stdio clients and commands share it, and survive each other's death."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import psutil
from fastmcp import Client
from fastmcp.client.transports import StdioTransport

from shield.app.owner import find_server
from tests.e2e.conftest import MakeUp, Up
from tests.integration.conftest import ended

NOTE = "The lighthouse keeper winds the great clock every Thursday at noon."


def stdio(up: Up) -> Client[Any]:
    """An agent that starts `shield mcp --stdio` on the same data directory."""
    return Client(StdioTransport(sys.executable, ["-m", "shield", "mcp", "--stdio"], env=up.environment, keep_alive=False))


async def command(up: Up, *arguments: str) -> tuple[int, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shield",
        *arguments,
        "--json",
        env=up.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert out, error.decode()
    return process.returncode or 0, json.loads(out)


async def test_a_server_two_stdio_clients_and_a_command_share_one_directory(up: MakeUp) -> None:
    server = up()
    await asyncio.to_thread(server.start)
    async with stdio(server) as one, stdio(server) as two, Client(f"{server.info.url}/mcp") as http:
        stored = (await one.call_tool("qdrant_store", {"text": NOTE, "source": "clock"})).structured_content or {}
        assert stored["changed"] is True
        for client in (two, http):
            found = (await client.call_tool("qdrant_find", {"query": "When is the clock wound?"})).structured_content or {}
            assert found["results"][0]["text"] == NOTE
        code, answer = await command(server, "ask", "When is the great clock wound?")
        assert (code, answer["found"]) == (0, True)
        assert "Thursday" in answer["answer"]
        assert find_server(server.data_dir) == server.info


async def test_without_a_server_the_first_client_owns_and_the_next_one_takes_over(up: MakeUp) -> None:
    directory = up()
    async with stdio(directory) as one:
        job = (await one.call_tool("ingest_doc", {"text": NOTE, "source": "clock"})).data.job_id
        assert (await ended(one, job))["status"] == "completed"
        owner = find_server(directory.data_dir)
        assert owner is not None
        async with stdio(directory) as two:
            assert (await two.call_tool("list_documents", {})).data.total == 1
            psutil.Process(owner.pid).kill()
            found = (await two.call_tool("qdrant_find", {"query": "When is the clock wound?"})).structured_content or {}
            assert found["results"][0]["text"] == NOTE
            heir = find_server(directory.data_dir)
            assert heir is not None
            assert heir.pid != owner.pid
            code, listed = await command(directory, "docs", "list")
            assert (code, listed["total"]) == (0, 1)


async def test_a_second_server_is_told_who_serves(up: MakeUp) -> None:
    server = up()
    info = await asyncio.to_thread(server.start)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shield", "up", "--no-samples", env={**os.environ, **server.environment}, stderr=asyncio.subprocess.PIPE
    )
    _, error = await process.communicate()
    assert process.returncode == 75
    assert info.url in error.decode()
