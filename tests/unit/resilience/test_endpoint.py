"""An endpoint whose key is rotated, or that answers with more than it should."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from shield.errors import DependencyMisconfigured, DependencyUnavailable
from shield.resilience.endpoint import JsonEndpoint, RotatingKey


class Gate:
    """Lets in who brings the right key."""

    def __init__(self) -> None:
        self.key = "old"
        self.refusal = 401
        self.seen: list[str | None] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("authorization")
        self.seen.append(key)
        await request.read()
        if key != f"Bearer {self.key}":
            return web.Response(status=self.refusal, text="our secret text")
        return web.json_response({"ok": True})


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def url(gate: Gate) -> AsyncIterator[str]:
    async def flood(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b'"' + b"a" * 3_000_000 + b'"'), headers={"content-encoding": "gzip"})

    async def nested(_: web.Request) -> web.Response:
        return web.Response(text="[" * 200_000)

    app = web.Application()
    app.router.add_post("/v1/ask", gate.handle)
    app.router.add_post("/v1/flood", flood)
    app.router.add_post("/v1/nested", nested)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("old\n", encoding="utf-8")
    return path


def an_endpoint(url: str, key: RotatingKey) -> JsonEndpoint:
    return JsonEndpoint("llm", "language model", url, key)


async def ask(endpoint: JsonEndpoint, path: str = "/v1/ask", **more: Any) -> Any:
    return await endpoint.post(path, more.pop("body", {"a": 1}), max_bytes=1_000_000, timeout=5)


async def test_a_rotated_key_file_is_used_from_the_next_request_on(url: str, gate: Gate, file: Path) -> None:
    endpoint = an_endpoint(url, RotatingKey(None, file))
    await ask(endpoint)
    gate.key = "the new one"
    file.write_text("the new one\n", encoding="utf-8")
    assert await ask(endpoint) == {"ok": True}
    assert gate.seen == ["Bearer old", "Bearer the new one"]
    await endpoint.close()


@pytest.mark.parametrize("refusal", [401, 403])
async def test_a_key_that_changed_behind_an_old_date_is_found_when_it_is_refused(url: str, gate: Gate, file: Path, refusal: int) -> None:
    endpoint = an_endpoint(url, RotatingKey(None, file))
    await ask(endpoint)
    gate.key, gate.refusal = "new", refusal
    before = file.stat()
    with file.open("r+", encoding="utf-8") as same_file:
        same_file.write("new")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # same file, same length, same date
    assert await ask(endpoint) == {"ok": True}
    assert gate.seen == ["Bearer old", "Bearer old", "Bearer new"]
    await endpoint.close()


async def test_the_same_key_is_not_sent_twice_to_who_refuses_it(url: str, gate: Gate, file: Path) -> None:
    gate.key = "other"
    endpoint = an_endpoint(url, RotatingKey(None, file))
    with pytest.raises(DependencyMisconfigured) as refused:
        await ask(endpoint)
    assert gate.seen == ["Bearer old"]
    assert "secret" not in str(refused.value)
    await endpoint.close()


async def test_a_key_file_that_is_gone_or_empty_for_a_moment_leaves_the_last_key_in_force(url: str, gate: Gate, file: Path) -> None:
    endpoint = an_endpoint(url, RotatingKey(SecretStr("unused"), file))
    await ask(endpoint)
    file.write_text("", encoding="utf-8")
    await ask(endpoint)
    file.unlink()
    await ask(endpoint)
    assert gate.seen == ["Bearer old"] * 3
    await endpoint.close()


async def test_a_key_that_no_header_can_hold_is_our_mistake(url: str) -> None:
    endpoint = an_endpoint(url, RotatingKey(SecretStr("pass\nword"), None))
    with pytest.raises(DependencyMisconfigured, match="characters"):
        await ask(endpoint)
    await endpoint.close()


async def test_an_address_that_is_none_is_our_mistake(file: Path) -> None:
    endpoint = an_endpoint("http://127.0.0.1:80/\x00", RotatingKey(None, file))
    with pytest.raises(DependencyMisconfigured, match="address"):
        await ask(endpoint)
    await endpoint.close()


async def test_an_answer_without_end_and_one_without_bottom_are_refused(url: str) -> None:
    endpoint = an_endpoint(url, RotatingKey(None, None))
    with pytest.raises(DependencyUnavailable, match="stop answering"):
        await ask(endpoint, "/v1/flood")
    with pytest.raises(DependencyUnavailable, match="unknown form"):
        await ask(endpoint, "/v1/nested")
    await endpoint.close()


async def test_text_that_no_encoding_holds_is_sent_all_the_same(url: str, gate: Gate) -> None:
    endpoint = an_endpoint(url, RotatingKey(SecretStr("old"), None))
    assert await ask(endpoint, body={"text": "half a pair: \ud800"}) == {"ok": True}
    await endpoint.close()


async def test_a_request_can_be_cancelled(url: str, gate: Gate) -> None:
    endpoint = an_endpoint(url, RotatingKey(None, None))
    task = asyncio.create_task(ask(endpoint))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await endpoint.close()
