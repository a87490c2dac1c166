"""Waiting that has a limit and says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from kind.errors import NotReadyInTime

_PAUSE = 0.05


def until(what: str, ready: Callable[[], bool], *, limit: float, pause: float = _PAUSE) -> None:
    """Ask `ready` until it says yes.

    Raises:
        NotReadyInTime: it did not within `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not ready():
        if time.monotonic() > deadline:
            raise NotReadyInTime(f"{what} did not become true within {limit:.0f} s")
        time.sleep(pause)
