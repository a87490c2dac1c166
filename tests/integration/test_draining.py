"""A server that is told to stop lets the requests end that it has begun, for as long as it is told."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shield.app.process import Process, bind
from shield.settings import Settings


class Slow(Process):
    """Answers when it is let go."""

    begun: asyncio.Event
    free: asyncio.Event
    port: int

    async def _start(self) -> None:
        self.begun, self.free = asyncio.Event(), asyncio.Event()
        listener = bind("127.0.0.1", 0)
        self._stack.callback(listener.close)
        self.port = listener.getsockname()[1]

        async def answer(_request: Request) -> PlainTextResponse:
            self.begun.set()
            await self.free.wait()
            return PlainTextResponse("done")

        self._serve(Starlette(routes=[Route("/", answer)]), listener)
        await self._serving()


def with_drain(settings: Settings, seconds: str) -> Settings:
    return settings.model_copy(update={"api": settings.api.model_validate({"drain": seconds})})


async def test_a_request_that_was_begun_is_answered_and_no_new_one_is_taken(settings: Settings) -> None:
    async with httpx.AsyncClient(timeout=20) as client, Slow(with_drain(settings, "20")) as process:
        url = f"http://127.0.0.1:{process.port}/"
        begun = asyncio.create_task(client.get(url))
        await asyncio.wait_for(process.begun.wait(), 10)
        stopping = asyncio.create_task(process._close())
        async with asyncio.timeout(10):
            while True:
                try:
                    async with httpx.AsyncClient(timeout=0.5) as another:
                        await another.get(url)
                except httpx.ConnectError:
                    break
                except httpx.TimeoutException:
                    continue
        assert not begun.done()
        process.free.set()
        answer = await begun
        assert (answer.status_code, answer.text) == (200, "done")
        await asyncio.wait_for(stopping, 10)


async def test_it_does_not_wait_longer_than_it_is_told(settings: Settings) -> None:
    async with httpx.AsyncClient(timeout=20) as client, Slow(with_drain(settings, "0.1")) as process:
        begun = asyncio.create_task(client.get(f"http://127.0.0.1:{process.port}/"))
        await asyncio.wait_for(process.begun.wait(), 10)
        await asyncio.wait_for(process._close(), 10)
        with pytest.raises(httpx.HTTPError):
            (await begun).raise_for_status()
