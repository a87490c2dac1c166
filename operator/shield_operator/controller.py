"""What a controller is: kinds that it watches, a reconcile for one key, and duties beside that which only the leader has.

A controller is built from the process's caches, its `Fenced` cluster and its own queue. While this process is a standby, caches fill and nothing
is reconciled; when it becomes the leader, every key of `primary` is added once, and from then on each change adds the keys that
`keys_of` names. `background` runs only while leading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from shield_operator.cluster import Key, Kind
from shield_operator.queue import Result, WorkQueue
from shield_operator.watching import Change, Watch


class Controller(Protocol):
    """One kind's controller."""

    name: str
    """For metrics and logs: one lower-case word."""
    primary: Kind
    """What it reconciles; keys are addresses of such objects."""
    watches: Sequence[Watch]
    """All kinds that it looks at, `primary` included. Kinds that several controllers watch are watched once."""
    queue: WorkQueue[Key]
    """Its keys."""
    workers: int
    """Reconciles at once."""

    def keys_of(self, change: Change) -> Iterable[Key]:
        """Whose reconcile may come to another result after this change; called on every replica, in the event loop, and must be quick."""

    async def reconcile(self, key: Key) -> Result:
        """Bring one object's world in line with its spec. Whatever it raises brings the key back later."""

    async def background(self) -> None:
        """Duties of the leader; runs until cancelled, and what it raises ends the process."""
