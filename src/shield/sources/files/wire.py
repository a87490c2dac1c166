"""Framing between the server and a converting child: an 8-byte length, then that many bytes; lengths have a bound."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

HEADER = struct.Struct(">Q")
MAX_REQUEST = 1 << 30
DATA_FD = 3
EXIT_BROKEN, EXIT_MEMORY = 70, 71


def frame(payload: bytes) -> bytes:
    """A payload with its length before it."""
    return HEADER.pack(len(payload)) + payload


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send a message as JSON; what UTF-8 cannot hold becomes a question mark."""
    channel.sendall(frame(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")))


def receive(channel: socket.socket) -> bytes:
    """The next payload.

    Raises:
        EOFError: the other side closed, or announced more than is allowed.
    """
    length = HEADER.unpack(_exactly(channel, HEADER.size))[0]
    if length > MAX_REQUEST:
        raise EOFError
    return _exactly(channel, length)


def _exactly(channel: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    done = 0
    while done < size:
        got = channel.recv_into(view[done:])
        if not got:
            raise EOFError
        done += got
    return bytes(buffer)
