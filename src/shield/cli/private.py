"""What a process knows stays in it, on a machine where others run as the same user."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_private() -> None:
    """Let no process of the same user read this one's environment and memory, and write no core of it.

    A browser or a converter that was taken over by a page or a document runs as the same user in the same container, and `/proc` would show it the
    credentials of the worker that started it. Programs that are started (exec) are as they always are. Linux only; elsewhere nothing happens.

    See prctl(2), PR_SET_DUMPABLE, and ptrace(2), "Ptrace access mode checking".
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
