"""The browser's debugging protocol over its pipe: JSON messages, each ended by a zero byte.

Only what showing a page takes: calls with answers, orders without, events by session. There is no network port to it, and
what the browser says is believed no further than its shape: a message that is too long or is no JSON ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

Event = Callable[[str, dict[str, Any]], None]
"""Called with an event's name and parameters; must not wait."""


class BrowserGone(Exception):
    """The browser ended, was killed, or stopped making sense."""


class CallFailed(Exception):
    """The browser refused a call; mostly because what it was about is gone."""


class Devtools:
    """One connection to one browser."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listeners: dict[str, Event] = {}
        self._last = 0
        self._open = True
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def over(cls, channel: socket.socket, limit: int) -> Devtools:
        """Speak over a connected socket; no message may be longer than `limit` bytes."""
        channel.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=channel, limit=limit)
        return cls(reader, writer)

    @property
    def open(self) -> bool:
        """Whether the browser still answers."""
        return self._open

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; the caller limits the time.

        Raises:
            CallFailed: the browser said no.
            BrowserGone: there is no browser any more.
        """
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        number = self.order(method, session, **params)
        self._calls[number] = answer
        try:
            return await answer
        finally:
            self._calls.pop(number, None)

    def order(self, method: str, session: str | None = None, **params: Any) -> int:
        """Say without waiting; whether it was done nobody hears.

        Raises:
            BrowserGone: there is no browser any more.
        """
        if not self._open:
            raise BrowserGone
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._writer.write(json.dumps(message).encode() + b"\0")
        return self._last

    def listen(self, session: str, listener: Event) -> None:
        """Hand a session's events to `listener` from now on."""
        self._listeners[session] = listener

    def forget(self, session: str) -> None:
        """Drop a session's events from now on."""
        self._listeners.pop(session, None)

    async def close(self) -> None:
        """Hang up; every call that waits fails."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                self._take(json.loads((await self._reader.readuntil(b"\0"))[:-1]))
        except (
            OSError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ValueError,
            RecursionError,
            TypeError,
            AttributeError,
            LookupError,
        ):
            pass  # it left, or speaks no protocol of ours
        finally:
            self._open = False
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(BrowserGone())
            for listener in list(self._listeners.values()):
                with contextlib.suppress(BrowserGone):
                    listener("gone", {})
            self._writer.transport.abort()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answer = self._calls.get(message["id"])
            if answer is None or answer.done():
                return
            if "error" in message:
                answer.set_exception(CallFailed(str(message["error"].get("message"))[:200]))
            else:
                answer.set_result(message.get("result") or {})
        elif (listener := self._listeners.get(message.get("sessionId", ""))) is not None:
            with contextlib.suppress(BrowserGone):
                listener(str(message.get("method")), message.get("params") or {})
