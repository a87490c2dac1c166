"""A job's events on the wire: order, resumption, keep-alive, errors in the middle, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import httpx
import pytest

from shield.api.sse import encode, event_response
from shield.auth import LOCAL
from shield.errors import CircuitOpen, UnknownJob
from tests.unit.api.test_problems import assert_problem
from tests.unit.stand_in import JOB, StandIn

EVENTS = f"/jobs/{JOB}/events"


async def test_the_stream_holds_snapshot_progress_and_end_with_ids(client: httpx.AsyncClient) -> None:
    response = await client.get(EVENTS)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    frames = response.text.strip().split("\n\n")
    assert [frame.splitlines()[:2] for frame in frames] == [
        ["id: 1-0", "event: snapshot"],
        ["id: 1-1", "event: progress"],
        ["id: 1-2", "event: end"],
    ]
    assert response.text.isascii()


@pytest.mark.parametrize(("sent", "given"), [("1-1", "1-1"), ("x" * 65, None), ("", None), (None, None)])
async def test_the_last_event_id_is_handed_on_if_it_can_be_one(
    sent: str | None, given: str | None, client: httpx.AsyncClient, stand_in: StandIn
) -> None:
    await client.get(EVENTS, headers={"Last-Event-ID": sent} if sent is not None else {})
    assert stand_in.calls[0][1]["last_event_id"] == given


async def test_an_unknown_job_is_a_404_and_no_stream(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.raises = UnknownJob()
    assert_problem(await client.get(EVENTS), "job.not_found")


async def test_an_error_in_the_middle_is_an_event_and_ends_the_stream(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.script = [("1-0", "snapshot", {}), CircuitOpen(retry_after=2), ("1-1", "progress", {})]
    text = (await client.get(EVENTS)).text
    assert '"code":"dependency.circuit_open"' in text
    assert "event: error" in text
    assert "progress" not in text


async def test_a_defect_in_the_middle_tells_an_id_only(client: httpx.AsyncClient, stand_in: StandIn) -> None:
    stand_in.script = [("1-0", "snapshot", {}), RuntimeError("hunter2")]
    response = await client.get(EVENTS)
    assert "hunter2" not in response.text
    assert response.headers["x-request-id"] in response.text


async def test_a_silent_stream_sends_comments_and_closes_its_source_when_the_reader_goes() -> None:
    stand_in = StandIn()
    stand_in.hold.clear()
    response = await event_response(stand_in.events(LOCAL, JOB), timedelta(milliseconds=20), {})
    frames = aiter(response.body_iterator)
    got = [await asyncio.wait_for(anext(frames), 2) for _ in range(3)]
    assert bytes(got[0])[:26] == b"id: 1-0\nevent: snapshot\nda"  # type: ignore[arg-type]
    assert got[1:] == [b": keep-alive\n\n"] * 2
    assert not stand_in.events_closed.is_set()
    await frames.aclose()  # type: ignore[attr-defined]
    assert stand_in.events_closed.is_set()


async def test_a_cancelled_stream_leaves_no_task_behind() -> None:
    stand_in = StandIn()
    stand_in.hold.clear()
    before = asyncio.all_tasks()
    response = await event_response(stand_in.events(LOCAL, JOB), timedelta(seconds=30), {})

    async def read() -> None:
        async for _ in response.body_iterator:
            pass

    reading = asyncio.create_task(read())
    for _ in range(10):
        await asyncio.sleep(0)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert stand_in.events_closed.is_set()
    assert asyncio.all_tasks() == before


def test_nothing_can_be_smuggled_into_a_frame() -> None:
    frame = encode("1\nevent: end", "progress\r\ndata: x", {"t": "a\n\ndata: b\u2028"})
    assert frame.decode() == 'id: 1event: end\nevent: progressdata: x\ndata: {"t":"a\\n\\ndata: b\\u2028"}\n\n'
