"""Whose turn it is: knowledge bases served by a process, the one served longest ago first."""

from __future__ import annotations

from uuid import UUID

_REMEMBERED = 1000


class Turns:
    """A bounded memory of who was served; one that was forgotten counts as not served yet, which brings it forward."""

    def __init__(self) -> None:
        self._served: dict[UUID, None] = {}

    @property
    def served(self) -> list[UUID]:
        """In the order in which they were last served."""
        return list(self._served)

    def serve(self, knowledge_base_id: UUID) -> None:
        """It had its turn."""
        self._served.pop(knowledge_base_id, None)
        self._served[knowledge_base_id] = None
        if len(self._served) > _REMEMBERED:
            del self._served[next(iter(self._served))]
