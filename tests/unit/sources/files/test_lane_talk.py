"""What a child may say: hostile answers are crashes, and pages extend the time once."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from shield.errors import ConversionCrashed, DocumentCorrupt
from shield.settings import FileSettings
from shield.sources.files.convert import _believe
from shield.sources.files.lane import Lane
from shield.sources.files.wire import HEADER, frame
from shield.sources.model import Block, BlockKind

ANSWER: dict[str, Any] = {
    "blocks": [["heading", "Title\0", 1, 1], ["paragraph", "Words\ud800", 0, None]],
    "title": "T",
    "mime": "text/plain",
    "pages": 1,
    "converter": "x 1",
    "links": [],
    "canonical": "",
    "warnings": [],
}


async def answer_of(*payloads: bytes, limit: float = 5.0) -> dict[str, Any] | None:
    """What the lane makes of a child that says this and closes."""
    lane = Lane(FileSettings(max_text_bytes=1000), None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        with theirs:
            theirs.sendall(b"".join(payloads))
        async with asyncio.timeout(limit) as clock:
            return await lane._talk(ours, {}, b"", clock)


async def test_a_child_that_closes_without_a_word_gave_no_answer() -> None:
    assert await answer_of() is None
    assert await answer_of(HEADER.pack(50) + b"half") is None


@pytest.mark.parametrize("payload", [b"{", b"[1]", b'"text"', b"[" * 900, b"\xff\xfe"])
async def test_what_is_no_json_object_is_a_crash(payload: bytes) -> None:
    with pytest.raises(ConversionCrashed):
        await answer_of(frame(payload))


async def test_an_answer_longer_than_allowed_is_never_read() -> None:
    with pytest.raises(ConversionCrashed):
        await answer_of(HEADER.pack(1 << 62))


async def test_pages_extend_the_time_once() -> None:
    lane = Lane(FileSettings(), None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        async with asyncio.timeout(5) as clock:
            before = clock.when()
            pages = frame(json.dumps({"pages": 10**9}).encode())
            theirs.sendall(pages + pages)
            await lane._talk(ours, {}, b"", clock)  # the second one counts as an answer
            assert clock.when() == pytest.approx((before or 0) + FileSettings().max_pages)


def test_a_good_answer_is_a_document_that_can_be_stored() -> None:
    converted = _believe(ANSWER)
    assert converted.blocks == (Block(BlockKind.HEADING, "Title", 1, 1), Block(BlockKind.PARAGRAPH, "Words", 0, None))
    assert converted.text == "Title\n\nWords"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer.pop("blocks"),
        lambda answer: answer.update(blocks=[["heading"]]),
        lambda answer: answer.update(blocks=[["picture", "x", 0, None]]),
        lambda answer: answer.update(blocks=[["heading", 5, 1, None]]),
        lambda answer: answer.update(blocks=[["heading", "x", "high", None]]),
        lambda answer: answer.update(title=None),
        lambda answer: answer.update(links=5),
        lambda answer: answer.update(pages="many"),
        lambda answer: answer.update(error="document.corrupt", details=None, message=None),
    ],
)
def test_an_answer_of_another_shape_is_a_crash(spoil: Callable[[dict[str, Any]], Any]) -> None:
    answer = json.loads(json.dumps(ANSWER))
    spoil(answer)
    with pytest.raises(ConversionCrashed):
        _believe(answer)


def test_an_error_is_raised_as_its_class() -> None:
    with pytest.raises(DocumentCorrupt) as caught:
        _believe({"error": "document.corrupt", "message": "Told.", "details": {"limit": 3}})
    assert caught.value.public()["details"] == {"limit": 3}
