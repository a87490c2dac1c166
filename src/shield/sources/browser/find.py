"""Which Chromium this machine has, if any. Nothing is started to find out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shield.settings import BrowserSettings

NEED = "browser"
"""What a worker with a browser offers, and what a job that cannot do without one needs."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium(settings: BrowserSettings) -> Path | None:
    """The program to start; None if there is none or it may not be used."""
    if not settings.enabled:
        return None
    if settings.executable is not None:
        return settings.executable if settings.executable.is_file() and os.access(settings.executable, os.X_OK) else None
    return next((Path(path) for name in _NAMES if (path := shutil.which(name))), None)
