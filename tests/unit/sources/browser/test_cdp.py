"""The debugging protocol with a peer that means harm: it ends, it never hangs."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from shield.sources.browser.cdp import BrowserGone, CallFailed, Devtools


class Peer:
    """The browser's end of the pipe, played by the test."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)

    async def heard(self) -> dict[str, object]:
        data = b""
        while not data.endswith(b"\0"):
            data += await asyncio.get_running_loop().sock_recv(self.theirs, 65536)
        message: dict[str, object] = json.loads(data[:-1])
        return message

    async def say(self, text: str | bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.theirs, (text.encode() if isinstance(text, str) else text) + b"\0")


@pytest.fixture
def peer() -> Peer:
    return Peer()


async def test_answers_find_their_calls_in_any_order(peer: Peer) -> None:
    devtools = await Devtools.over(peer.ours, 1000)
    first, second = asyncio.create_task(devtools.call("A")), asyncio.create_task(devtools.call("B", "tab", deep={"x": 1}))
    await asyncio.sleep(0)
    said = b""
    while said.count(b"\0") < 2:
        said += await asyncio.get_running_loop().sock_recv(peer.theirs, 65536)
    assert [json.loads(part) for part in said.split(b"\0")[:2]] == [
        {"id": 1, "method": "A", "params": {}},
        {"id": 2, "method": "B", "params": {"deep": {"x": 1}}, "sessionId": "tab"},
    ]
    await peer.say('{"id": 2, "error": {"message": "no such tab"}}')
    await peer.say('{"id": 77, "result": {}}')
    await peer.say('{"id": 1, "result": {"ok": true}}')
    assert await first == {"ok": True}
    with pytest.raises(CallFailed, match="no such tab"):
        await second
    await devtools.close()
    peer.theirs.close()


async def test_events_go_to_their_session_only(peer: Peer) -> None:
    devtools = await Devtools.over(peer.ours, 1000)
    heard: list[tuple[str, object]] = []
    devtools.listen("tab", lambda event, said: heard.append((event, said)))
    await peer.say('{"method": "Page.load", "sessionId": "other"}')
    await peer.say('{"method": "Page.load", "sessionId": "tab", "params": {"at": 1}}')
    call = asyncio.create_task(devtools.call("Sync"))
    await peer.heard()
    await peer.say('{"id": 1}')
    assert await call == {}
    assert heard == [("Page.load", {"at": 1})]
    devtools.forget("tab")
    await devtools.close()
    peer.theirs.close()


@pytest.mark.parametrize(
    "nonsense",
    ["not json", "[]", "[" * 5000, "7", '{"id": []}', '{"id": 1, "error": 5}', '{"sessionId": "tab", "method": "x"}', b"\xff", b"x" * 5000],
    ids=range(9),
)
async def test_nonsense_ends_the_connection_and_every_call(peer: Peer, nonsense: str | bytes) -> None:
    devtools = await Devtools.over(peer.ours, 4096)
    ended = asyncio.Event()

    def listener(event: str, said: dict[str, object]) -> None:
        if event == "gone":
            ended.set()
        else:
            said["missing"]

    devtools.listen("tab", listener)
    call = asyncio.create_task(devtools.call("A"))
    await peer.heard()
    await peer.say(nonsense)
    async with asyncio.timeout(1):
        with pytest.raises(BrowserGone):
            await call
        await ended.wait()
    assert not devtools.open
    with pytest.raises(BrowserGone):
        await devtools.call("B")
    await devtools.close()
    peer.theirs.close()
