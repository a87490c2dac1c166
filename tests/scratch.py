"""Where databases and vector indexes of tests lie: in memory, if there is room, because every write of theirs ends in an fsync."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 2 * 1024**3
"""Bytes that must be free there; a test process uses a fraction of that."""


def scratch() -> Path | None:
    """The parent for `tempfile`; None, its own choice, where memory has no file system or no room."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    return _MEMORY if usable else None
