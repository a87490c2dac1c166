"""What the operator knows of the cluster: caches that kopf's watches fill, and the check that the watches tell the truth.

A cache keeps of each object what reconciles read, as compact JSON, with the resourceVersion that is newest among what the watch delivered and
what we wrote ourselves, so that a reconcile sees its own writes. kopf lists and watches; its handlers only pass events on to here, as they
may not fail (kopf would swallow it).

A watch can go silent without an error, and a relist does not tell deletions. So `Resync` lists metadata now and then, and every resourceVersion
that it sees must be delivered by the watch within a time limit, deletions included; if not, `WatchIsStale` ends the process, and the standby
or the next start begins with a fresh list. A quiet cluster and an API server that is away are neither of that.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic_core import from_json, to_json

from shield_operator.cluster import Cluster, ClusterError, Expired, Key, Kind, Obj
from shield_operator.metrics import Metrics

_META = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "labels", "annotations",
         "ownerReferences", "finalizers")  # fmt: skip
_FIRST_PAUSE = 20
"""Looks before the first fresh list: it costs more than waiting for a watch that is busy with its first objects."""
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class WatchIsStale(Exception):
    """A watch did not deliver what a list saw."""


class Owner(NamedTuple):
    """The object that controls another one."""

    kind: str
    name: str
    uid: str


class Change(NamedTuple):
    """An object came, changed or went."""

    kind: Kind
    key: Key
    uid: str
    owner: Owner | None
    gone: bool


def owner_of(obj: Obj) -> Owner | None:
    """Who controls an object."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return Owner(sys.intern(reference["kind"]), reference["name"], reference["uid"])
    return None


def without_noise(obj: Obj) -> Obj:
    """The object with only the metadata that somebody reads."""
    meta = {name: value for name in _META if (value := obj["metadata"].get(name))}
    if _LAST_APPLIED in meta.get("annotations", ()):
        meta["annotations"] = {name: value for name, value in meta["annotations"].items() if name != _LAST_APPLIED}
    return {**obj, "metadata": meta}


@dataclass(frozen=True)
class Watch:
    """A kind to watch."""

    kind: Kind
    selector: str = ""
    """Labels, selected by the API server."""
    keep: Callable[[Obj], Obj] = without_noise
    """What of an object is kept; its `metadata` must stay."""


class Entry:
    """What is known of one object."""

    __slots__ = ("blob", "heard", "owner_uid", "seen", "uid", "version")

    def __init__(self, *, uid: str, version: int, seen: int, owner_uid: str, blob: bytes, heard: float) -> None:
        self.uid = uid
        self.version = version
        """Its newest resourceVersion, from the watch or from our own writes."""
        self.seen = seen
        """The newest one that the watch delivered."""
        self.owner_uid = owner_uid
        self.blob = blob
        self.heard = heard
        """When it was first heard of, on the monotonic clock."""


class Cache:
    """The objects of one kind. Belongs to one event loop; all methods are immediate."""

    def __init__(self, watch: Watch, tell: Callable[[Change], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.watch = watch
        self.kind = watch.kind
        self._tell = tell
        self._clock = clock
        self._entries: dict[Key, Entry] = {}
        self._owned: dict[str, set[Key]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> list[Key]:
        """The addresses of all objects."""
        return list(self._entries)

    def uids(self) -> set[str]:
        """The uids of all objects."""
        return {entry.uid for entry in self._entries.values()}

    def get(self, key: Key) -> Obj | None:
        """An object, parsed anew for each caller; None if there is none."""
        entry = self._entries.get(key)
        return from_json(entry.blob) if entry else None

    def entry(self, key: Key) -> Entry | None:
        """What is known of an object beside its content."""
        return self._entries.get(key)

    def children(self, owner_uid: str) -> list[Obj]:
        """The objects that the object of this uid controls, by name."""
        return [from_json(self._entries[key].blob) for key in sorted(self._owned.get(owner_uid, ()))]

    def values(self, namespace: str = "") -> Iterator[Obj]:
        """All objects (of a namespace); the cache must not change meanwhile."""
        return (from_json(entry.blob) for key, entry in self._entries.items() if not namespace or key.namespace == namespace)

    def deliver(self, obj: Obj, *, deleted: bool) -> None:
        """Take what the watch delivered. Old news only counts as seen."""
        key, uid, version = _address(obj)
        entry = self._entries.get(key)
        if entry is not None and entry.uid == uid:
            entry.seen = max(entry.seen, version)
            if version < entry.version or (version == entry.version and not deleted):
                return
        elif entry is not None and version < entry.version:
            return  # of a predecessor of that name
        if deleted:
            self._remove(key, owner_of(obj))
        else:
            self._put(key, obj, seen=version)
            self._tell(Change(self.kind, key, uid, owner_of(obj), gone=False))

    def wrote(self, obj: Obj, *, created: bool = False) -> None:
        """Take the API server's answer to a write of ours: nobody is told. One to an object that has gone meanwhile is nothing."""
        key, uid, version = _address(obj)
        entry = self._entries.get(key)
        same = entry is not None and entry.uid == uid
        if (entry is not None and version <= entry.version) or not (same or created):
            return
        self._put(key, obj, seen=entry.seen if entry is not None and same else 0)

    def lacks(self, listed: Mapping[Key, int], version: int) -> set[Key]:
        """Of what a list at `version` saw: what the watch has not delivered, and what it has not taken away."""
        missing = {key for key, at in listed.items() if (entry := self._entries.get(key)) is None or entry.seen < at}
        left = [key for key, entry in self._entries.items() if entry.version <= version and key not in listed]
        for key in left:
            if self._entries[key].seen == 0:  # an object of ours that was gone before the answer to its creation was here
                self._remove(key, None)
        return missing | {key for key in left if key in self._entries}

    def still_lacks(self, lacking: Iterable[Key], listed: Mapping[Key, int]) -> set[Key]:
        """Of those that it lacked: costs what is left, not what there is."""
        there = self._entries
        return {
            key
            for key in lacking
            if (key in there if (at := listed.get(key)) is None else (entry := there.get(key)) is None or entry.seen < at)
        }

    def _put(self, key: Key, obj: Obj, *, seen: int) -> None:
        _, uid, version = _address(obj)
        owner = owner_of(obj)
        owner_uid = owner.uid if owner else ""
        old = self._entries.get(key)
        if old is not None and old.owner_uid != owner_uid:
            self._disown(key, old.owner_uid)
        if old is not None and old.uid != uid:
            self._tell(Change(self.kind, key, old.uid, None, gone=True))
            old = None
        blob = to_json(self.watch.keep(obj))
        heard = old.heard if old is not None else self._clock()
        self._entries[key] = Entry(uid=uid, version=version, seen=seen, owner_uid=owner_uid, blob=blob, heard=heard)
        if owner_uid:
            self._owned.setdefault(owner_uid, set()).add(key)

    def _remove(self, key: Key, owner: Owner | None) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._disown(key, entry.owner_uid)
        self._tell(Change(self.kind, key, entry.uid, owner, gone=True))

    def _disown(self, key: Key, owner_uid: str) -> None:
        owned = self._owned.get(owner_uid)
        if owned is not None:
            owned.discard(key)
            if not owned:
                del self._owned[owner_uid]


def _address(obj: Obj) -> tuple[Key, str, int]:
    meta = obj["metadata"]
    return Key(meta.get("namespace") or "", meta["name"]), meta["uid"], int(meta["resourceVersion"])


class Resync:
    """Compares caches with fresh lists: once until they agree (`synced`), then now and then."""

    def __init__(
        self,
        cluster: Cluster,
        caches: Sequence[Cache],
        metrics: Metrics,
        *,
        namespaces: Sequence[str],
        patience: float,
        poll: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._caches = caches
        self._metrics = metrics
        self._namespaces = namespaces or ("",)
        self._patience = patience
        self._poll = poll
        self.synced = False
        """The caches held at least what a fresh list saw."""
        self._clock = clock
        self._confirmed = clock()
        metrics.confirmed_age.set_function(lambda: self._clock() - self._confirmed)

    async def check(self) -> None:
        """List everything; wait until the watches have delivered it.

        Raises:
            ClusterError: the API server did not answer.
            WatchIsStale: a watch did not deliver in time.
        """
        for cache in self._caches:
            await self._delivered(cache)
            self._metrics.cached.labels(cache.kind.plural).set(len(cache))
        self.synced = True
        self._confirmed = self._clock()

    async def first(self, pause: float) -> None:
        """Check until it could be done; an API server that is away is waited for.

        Raises:
            WatchIsStale: a watch did not deliver in time.
        """
        while True:
            try:
                await self.check()
            except ClusterError:
                await asyncio.sleep(pause)
            else:
                return

    async def _list(self, cache: Cache) -> tuple[dict[Key, int], int]:
        while True:
            listed: dict[Key, int] = {}
            versions: list[int] = []
            try:
                for namespace in self._namespaces:
                    async for page in self._cluster.list(cache.kind, namespace, selector=cache.watch.selector, metadata_only=True):
                        versions.append(int(page.version))
                        listed.update({key: version for key, _, version in map(_address, page.items)})
            except Expired:
                continue
            return listed, min(versions)

    async def _delivered(self, cache: Cache) -> None:
        """Wait for the watch; what came and went meanwhile is found out by listing again, each time after twice the pause."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience
        listed, version = await self._list(cache)
        lacking, pause = cache.lacks(listed, version), _FIRST_PAUSE * self._poll
        while lacking:
            again = clock() + pause
            while lacking and clock() < again:
                await asyncio.sleep(self._poll)
                lacking = cache.still_lacks(lacking, listed)
            if lacking:
                fresh, _ = await self._list(cache)
                lacking = {key for key in lacking if (key in fresh) == (key in listed)}
                pause *= 2
            if lacking and clock() >= deadline:
                self._metrics.stale_watches.labels(cache.kind.plural).inc()
                raise WatchIsStale(
                    f"{cache.kind.plural}: {len(lacking)} changes not delivered within {self._patience:g} s, such as {min(lacking)}"
                )
