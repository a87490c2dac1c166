"""A lane: one host process and, at any time, at most one child of it at work.

The host starts with the first document and stops after a pause. A child that runs out of its time is killed together with
the host, and so is one whose caller was cancelled: a fresh start costs seconds, an unknown state would cost more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from shield.errors import ConversionCrashed, ConversionOutOfMemory, ConversionTimeout
from shield.settings import FileSettings
from shield.sources.files.wire import EXIT_MEMORY, HEADER, frame

ANSWER_OVERHEAD = 2
"""How much larger than its text an answer may be: JSON escapes, page numbers, links."""
GRACE = 1.0
"""Seconds for a host to kill its child and leave before it is killed itself."""


class _State(Enum):
    READY = auto()
    ORDERED = auto()
    WORKING = auto()


@dataclass
class _Host:
    process: subprocess.Popen[bytes]
    control: socket.socket
    home: Path
    state: _State = _State.READY

    def stop(self) -> None:
        """End host and child, and remove what they wrote. Does not return before both are gone."""
        self.control.close()
        if self.state is _State.WORKING:  # it hears of it at once, and takes the child's whole session with it
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


class Lane:
    """Runs conversions one after the other, each in a child of its own."""

    def __init__(self, settings: FileSettings, scratch: Path | None) -> None:
        self._settings = settings
        self._scratch = scratch
        self._turn = asyncio.Lock()
        self._host: _Host | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False
        self._waiting = 0

    async def run(self, library: str | None, request: dict[str, Any], content: bytes) -> dict[str, Any]:
        """The child's answer.

        Raises:
            ConversionTimeout, ConversionOutOfMemory, ConversionCrashed: the child gave none.
        """
        self._waiting += 1
        try:
            async with self._turn:
                return await self._take_turn(library, request, content)
        finally:
            self._waiting -= 1

    @property
    def load(self) -> tuple[int, bool]:
        """How many wait or work here, and whether the next one would have to wait for a host to start: less is better."""
        return self._waiting, self._host is None

    def recycle(self) -> None:
        """Let the host go if nothing is converted here just now."""
        if not self._turn.locked():
            self._stop()

    async def close(self) -> None:
        """Stop the host, and a child at work: its caller gets `ConversionCrashed`, and so does everyone still in line."""
        self._closed = True
        if self._host is not None:
            self._host.process.kill()
        async with self._turn:
            self._stop()

    async def _take_turn(self, library: str | None, request: dict[str, Any], content: bytes) -> dict[str, Any]:
        if self._closed:
            raise ConversionCrashed("The converter was closed.")
        self._stay()
        try:
            return await self._run(library, request, content)
        finally:
            if self._host is not None and self._host.state is not _State.READY:
                self._stop()  # cancelled, out of time, or broken: no one can tell where it stands
            elif self._host is not None:
                self._idle = asyncio.get_running_loop().call_later(self._settings.convert_idle.total_seconds(), self._stop)

    def _stop(self) -> None:
        self._stay()
        if self._host is not None:
            host, self._host = self._host, None
            host.stop()

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _run(self, library: str | None, request: dict[str, Any], content: bytes) -> dict[str, Any]:
        host = self._ready_host()
        limit = self._settings.convert_timeout.total_seconds()
        home = Path(tempfile.mkdtemp(prefix="job-", dir=host.home))
        order = {"library": library, "home": str(home), "memory": int(self._settings.convert_memory), "seconds": int(limit) + 1}
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            with theirs:
                self._order(host, order, theirs)
            await self._started(host, library)
            try:
                async with asyncio.timeout(limit) as clock:
                    answer = await self._talk(ours, request, content, clock)
                    ended = await _message(host.control)
            except TimeoutError:
                raise ConversionTimeout from None
            host.state = _State.READY
            return answer if answer is not None else self._verdict(ended)
        finally:
            ours.close()
            shutil.rmtree(home, ignore_errors=True)

    async def _started(self, host: _Host, library: str | None) -> None:
        try:
            async with asyncio.timeout(self._settings.convert_start.total_seconds()):
                message = await _message(host.control)
        except TimeoutError:
            raise ConversionCrashed("The converter did not start in time.") from None
        if "pid" not in message:
            raise ConversionCrashed(f"The converter could not load {library}.", cause=message.get("failed"))
        host.state = _State.WORKING

    async def _talk(self, channel: socket.socket, request: dict[str, Any], content: bytes, clock: asyncio.Timeout) -> dict[str, Any] | None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):  # it died while reading: its end says why
            await loop.sock_sendall(channel, frame(json.dumps(request).encode()) + HEADER.pack(len(content)))
            await loop.sock_sendall(channel, content)
        told = False
        async for payload in _frames(channel, ANSWER_OVERHEAD * int(self._settings.max_text_bytes)):
            message = await asyncio.to_thread(_parse, payload)
            if message.keys() == {"pages"} and isinstance(message["pages"], int) and not told:
                told = True
                clock.reschedule((clock.when() or loop.time()) + min(max(message["pages"], 0), self._settings.max_pages))
                continue
            return message
        return None

    def _verdict(self, ended: dict[str, Any]) -> dict[str, Any]:
        status = ended["status"]
        if status == -signal.SIGXCPU:
            raise ConversionTimeout
        if status in {EXIT_MEMORY, -signal.SIGKILL} or ended["peak"] > int(self._settings.convert_memory) / 2:
            raise ConversionOutOfMemory
        raise ConversionCrashed

    def _order(self, host: _Host, order: dict[str, Any], channel: socket.socket) -> None:
        host.state = _State.ORDERED
        try:
            socket.send_fds(host.control, [json.dumps(order).encode()], [channel.fileno()])
        except OSError as error:
            raise ConversionCrashed("The converter's process is gone.") from error

    def _ready_host(self) -> _Host:
        if self._host is not None and self._host.process.poll() is not None:
            self._stop()
        if self._host is None:
            self._host = self._start()
        return self._host

    def _start(self) -> _Host:
        home = Path(tempfile.mkdtemp(prefix="convert-", dir=self._scratch))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        environment = {
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            "CRAWL4_AI_BASE_DIRECTORY": str(home),
            "CRAWL4AI_NO_CLOUD_NOTICE": "1",
            "HF_HUB_OFFLINE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "MALLOC_ARENA_MAX": "2",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            # Started from the loop's own thread: the host is killed when that thread ends.
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-I", "-m", "shield.sources.files.host", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd=home,
                start_new_session=True,
            )
        return _Host(process, ours, home)


class Lanes:
    """Several lanes of one kind: as many conversions at once, each in the lane that is free or soonest will be."""

    def __init__(self, settings: FileSettings, scratch: Path | None, count: int) -> None:
        self._lanes = [Lane(settings, scratch) for _ in range(count)]

    async def run(self, library: str | None, request: dict[str, Any], content: bytes) -> dict[str, Any]:
        """The child's answer; see `Lane.run`."""
        return await min(self._lanes, key=lambda lane: lane.load).run(library, request, content)

    def recycle(self) -> None:
        """Let idle hosts go."""
        for lane in self._lanes:
            lane.recycle()

    async def close(self) -> None:
        """Stop them all."""
        for lane in self._lanes:
            await lane.close()


async def _message(control: socket.socket) -> dict[str, Any]:
    """The host's next message."""
    try:
        data = await asyncio.get_running_loop().sock_recv(control, 65536)
    except ConnectionError:
        data = b""
    if not data:
        raise ConversionCrashed("The converter's process ended.")
    message: dict[str, Any] = json.loads(data)
    return message


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
        if isinstance(message, dict):
            return message
    except (ValueError, RecursionError) as error:
        raise ConversionCrashed from error
    raise ConversionCrashed


async def _frames(channel: socket.socket, most: int) -> AsyncIterator[bytes]:
    """Payloads until the child closes; one that is too long ends the conversation."""
    while (header := await _exactly(channel, HEADER.size)) is not None:
        length = HEADER.unpack(header)[0]
        if length > most:
            raise ConversionCrashed("The converter answered with more than allowed.")
        payload = await _exactly(channel, length)
        if payload is None:
            return
        yield payload


async def _exactly(channel: socket.socket, size: int) -> bytes | None:
    loop = asyncio.get_running_loop()
    buffer = bytearray(size)
    view = memoryview(buffer)
    done = 0
    while done < size:
        try:
            got = await loop.sock_recv_into(channel, view[done:])
        except ConnectionError:
            got = 0
        if not got:
            return None
        done += got
    return bytes(buffer)
