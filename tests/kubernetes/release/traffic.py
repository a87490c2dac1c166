"""Callers of MCP at a gateway: so many tool calls a second, each by a real client, and what became of every one.

Arrivals are open: a call begins when its time has come, whatever became of those before it. Sessions are kept, as agents keep theirs, and opened anew
after a failure.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from kind.waiting import until

_SESSIONS = 8
_LIMIT = 20.0


@dataclass(frozen=True)
class Target:
    """What is called, and as whom."""

    gateway: str
    """Its address, such as http://10.96.0.5:8000."""
    host: str
    """The name by which the gateway knows the release."""
    key: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def client(self) -> Client[StreamableHttpTransport]:
        """A client of MCP."""
        transport = StreamableHttpTransport(f"{self.gateway}/mcp", headers={"Host": self.host, **self.headers}, auth=self.key)
        return Client(transport, timeout=_LIMIT)


@dataclass(frozen=True)
class Call:
    """One that is over."""

    began: float
    """By time.monotonic()."""
    ended: float
    fault: str
    """Empty: it was answered."""


class Traffic:
    """Calls of one tool at a steady rate, in a thread of its own, from enter to exit; a context manager."""

    def __init__(self, target: Target, rate: float, tool: str, arguments: Mapping[str, Any], *, count: int = 0) -> None:
        """`rate`: calls a second. `count`: end after so many; 0: go on until exit."""
        self._target, self._rate, self._tool, self._arguments, self._count = target, rate, tool, dict(arguments), count
        self.calls: list[Call] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic")

    @property
    def failed(self) -> list[Call]:
        """Those that were not answered, so far."""
        return [call for call in list(self.calls) if call.fault]

    @staticmethod
    def now() -> float:
        """On the clock of the calls."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Let it go on for so long: how callers fare then is what is asked."""
        self._thread.join(timeout=seconds)

    def wait(self, seconds: float) -> None:
        """Until `count` calls are over.

        Raises:
            NotReadyInTime: they were not within so many seconds.
        """
        until(f"{self._count} calls are over", lambda: not self._thread.is_alive(), limit=seconds)

    def wait_for_calls(self, number: int, *, seconds: float = 60) -> None:
        """Until so many are over.

        Raises:
            NotReadyInTime: they were not within so many seconds.
        """
        until(f"{number} calls are over", lambda: len(self.calls) >= number, limit=seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(timeout=_LIMIT * 2)

    async def _run(self) -> None:
        due: asyncio.Queue[float] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            callers = [tasks.create_task(self._caller(due)) for _ in range(_SESSIONS)]
            began, number = time.monotonic(), 0
            while not self._enough.is_set() and not (self._count and number == self._count):
                now = time.monotonic()
                while began + number / self._rate <= now and not (self._count and number == self._count):
                    due.put_nowait(began + number / self._rate)
                    number += 1
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            await asyncio.wait_for(due.join(), _LIMIT * 4)
            for caller in callers:
                caller.cancel()

    async def _caller(self, due: asyncio.Queue[float]) -> None:
        async with _Session(self._target) as session:
            while True:
                await due.get()
                began, fault = time.monotonic(), ""
                try:
                    answer = await (await session.client()).call_tool(self._tool, self._arguments, raise_on_error=False)
                    fault = _fault_of(answer) if answer.is_error else ""
                except Exception as error:  # noqa: BLE001  whatever it is, a call was lost, and the next begins with a new session
                    fault = f"{type(error).__name__}: {error}"
                    await session.close()
                finally:
                    due.task_done()
                self.calls.append(Call(began, time.monotonic(), fault))


class _Session:
    """A client that is opened when it is needed, and anew after it was closed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stack = AsyncExitStack()
        self._client: Client[StreamableHttpTransport] | None = None

    async def client(self) -> Client[StreamableHttpTransport]:
        if self._client is not None:
            return self._client
        client = self._target.client()
        await self._stack.enter_async_context(client)
        self._client = client
        return client

    async def close(self) -> None:
        self._client = None
        with suppress(Exception):  # one that is broken may not even close
            await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _fault_of(answer: Any) -> str:
    return " ".join(str(getattr(part, "text", part)) for part in answer.content)[:300] or "an error without words"
