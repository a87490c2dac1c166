"""Every decision, printed for people and kept as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Journal:
    """What was decided, when, and on what grounds."""

    def __init__(self, say: Callable[[str], None], path: Path | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`path`: a file that lines are added to; None: decisions are only printed."""
        self._say, self._path, self._now = say, path, now

    def note(self, event: str, text: str, **facts: Any) -> None:
        """Take down a decision, or what led to it."""
        at = self._now()
        self._say(f"{at:%H:%M:%S}  {text}")
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": at.isoformat(timespec="seconds"), "event": event, "text": text, **facts}) + "\n")
