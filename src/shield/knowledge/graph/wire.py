"""The wire between Shield and a graph process: requests in both directions over one socket.

A frame is four bytes of length (big endian) and one JSON object: `{"id", "call", "args"}`, `{"id", "ok"}` or
`{"id", "error": {"code", "message", "kind", "retry_after", "details"}}`. Vectors travel as base64 of little-endian float32. Nothing is ever unpickled,
and a frame longer than `LIMIT` ends the connection. An error crosses as its code and its safe message; of an untyped
exception only the name of its class crosses, because LightRAG's messages quote documents.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shield.errors import ShieldError, from_code

LIMIT = 64 * 1024 * 1024

_DETAILS = ("service", "late")

Handler = Callable[..., Awaitable[Any]]


class PeerGone(Exception):
    """The process at the other end is gone, or sent what it may not send."""


class PeerFailed(Exception):
    """The other end could not do what it was asked; `code` is a Shield error's, or empty with the exception's class in `kind`."""

    def __init__(self, code: str, message: str, kind: str, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(code or kind)
        self.code, self.message, self.kind, self.retry_after, self.details = code, message, kind, retry_after, details

    @classmethod
    def of(cls, error: ShieldError) -> PeerFailed:
        """A typed error as it crosses: with what decides about a retry, and nothing else."""
        details = {name: error.details[name] for name in _DETAILS if name in error.details}
        return cls(error.code, error.message, type(error).__name__, error.retry_after, **details)

    @classmethod
    def read(cls, form: Mapping[str, Any]) -> PeerFailed:
        """The other end's error."""
        pause, told = form.get("retry_after"), form.get("details")
        details = {name: told[name] for name in _DETAILS if name in told} if isinstance(told, dict) else {}
        code, message, kind = (str(form.get(name) or "") for name in ("code", "message", "kind"))
        return cls(code, message, kind, float(pause) if isinstance(pause, int | float) else None, **details)

    def form(self) -> dict[str, Any]:
        """What crosses."""
        return {"code": self.code, "message": self.message, "kind": self.kind, "retry_after": self.retry_after, "details": self.details}

    def typed(self) -> ShieldError | None:
        """The Shield error that it was, if it was one."""
        return from_code(self.code, self.message, retry_after=self.retry_after, **self.details) if self.code else None


class Channel:
    """One end of the wire. `run` serves it until the other end closes; `call` may be used while it runs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Mapping[str, Handler]) -> None:
        self._reader, self._writer, self._handlers = reader, writer, handlers
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._closed = False

    async def call(self, name: str, **args: Any) -> Any:
        """Ask the other end; the caller sets the time limit.

        Raises:
            PeerGone: it went away before it answered.
            PeerFailed: it answered with an error.
        """
        if self._closed:
            raise PeerGone
        self._next += 1
        number = self._next
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._send({"id": number, "call": name, "args": args})
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def run(self) -> None:
        """Serve until the other end closes; calls that wait for an answer then end with `PeerGone`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                served: set[asyncio.Task[None]] = set()
                while (message := await self._receive()) is not None:
                    if "call" in message:
                        task = tasks.create_task(self._serve(message))
                        served.add(task)
                        task.add_done_callback(served.discard)
                    else:
                        self._settle(message)
                for task in served:  # nobody is left to hear their answers
                    task.cancel()
        finally:
            self._closed = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(PeerGone())
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()

    async def _serve(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        try:
            result = await self._handlers[message["call"]](**message.get("args", {}))
            reply: dict[str, Any] = {"id": number, "ok": result}
        except ShieldError as error:
            reply = {"id": number, "error": PeerFailed.of(error).form()}
        except PeerFailed as error:  # of a request that went the other way meanwhile
            reply = {"id": number, "error": error.form()}
        except Exception as error:  # noqa: BLE001  the request's boundary: the asking side decides, and must not see quoted text
            reply = {"id": number, "error": PeerFailed("", "", type(error).__name__).form()}
        with contextlib.suppress(PeerGone):
            await self._send(reply)

    def _settle(self, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message.get("id", 0))
        if answer is None or answer.done():
            return
        if error := message.get("error"):
            answer.set_exception(PeerFailed.read(error if isinstance(error, dict) else {}))
        else:
            answer.set_result(message.get("ok"))

    async def _receive(self) -> dict[str, Any] | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > LIMIT:
                return None
            message = json.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    async def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(body) > LIMIT:
            raise PeerGone
        try:
            self._writer.write(len(body).to_bytes(4, "big") + body)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise PeerGone from error


def pack(vectors: npt.NDArray[np.float32]) -> str:
    """Vectors as text."""
    return base64.b64encode(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).decode("ascii")


def unpack(text: str, dim: int) -> npt.NDArray[np.float32]:
    """The vectors of `pack`, shape (n, dim)."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(-1, dim).astype(np.float32)
