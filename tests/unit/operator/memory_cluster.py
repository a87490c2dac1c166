"""The `Cluster` port in memory, with the API server's rules that reconciles rely on: uids, resourceVersions, names, preconditions.

Deletion is immediate unless there are finalizers. `die_after` makes the process die after that many more writes: the write takes
effect, and nothing after it happens. The contract that it shares with the real API server is tested in tests/kubernetes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from shield_operator.cluster import EVENTS, AlreadyExists, Conflict, Key, Kind, NotFound, Obj, Page
from shield_operator.watching import Cache, Change, Watch


class Died(BaseException):
    """The process was killed."""


class MemoryCluster:
    """Objects by kind and address."""

    def __init__(self, clock: Callable[[], str]) -> None:
        self.objects: dict[Kind, dict[Key, Obj]] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.refuse: Callable[[str, Kind, str], Exception | None] = lambda verb, kind, name: None
        self.die_after: int | None = None
        self._version = itertools.count(1)
        self._clock = clock
        self._caches: list[Cache] = []

    def cache(self, kind: Kind, tell: Callable[[Change], None] = lambda change: None) -> Cache:
        """A cache that hears of every change at once."""
        cache = Cache(Watch(kind), tell)
        for obj in self.objects.get(kind, {}).values():
            cache.deliver(copy.deepcopy(obj), deleted=False)
        self._caches.append(cache)
        return cache

    def of(self, kind: Kind) -> dict[str, Obj]:
        """All objects of a kind, by name."""
        return {key.name: obj for key, obj in self.objects.get(kind, {}).items()}

    def events(self) -> list[tuple[str, str]]:
        """Reason and message of all Events."""
        return [(event["reason"], event["message"]) for event in self.of(EVENTS).values()]

    # -- the user ---------------------------------------------------------------------------------------------------------

    def put(self, kind: Kind, obj: Obj) -> Obj:
        """An object as a user writes it: the spec counts a generation."""
        meta = obj["metadata"]
        key = Key(meta["namespace"], meta["name"])
        old = self.objects.setdefault(kind, {}).get(key)
        new = copy.deepcopy(obj)
        new.setdefault("apiVersion", kind.api_version)
        new["kind"] = kind.kind
        changed = old is None or old.get("spec") != new.get("spec")
        new["metadata"] |= {
            "uid": old["metadata"]["uid"] if old else f"uid-{next(self._version)}",
            "creationTimestamp": old["metadata"]["creationTimestamp"] if old else self._clock(),
            "generation": (old["metadata"]["generation"] if old else 0) + changed,
            "resourceVersion": str(next(self._version)),
        }
        self.objects[kind][key] = new
        self._delivered(kind, new, deleted=False)
        return copy.deepcopy(new)

    def change(self, kind: Kind, name: str, namespace: str = "team", **parts: Any) -> Obj:
        """Replace parts of an object, such as its status."""
        return self.put(kind, {**self.objects[kind][Key(namespace, name)], **parts})

    def remove(self, kind: Kind, name: str, namespace: str = "team") -> None:
        """Delete an object as the API server does."""
        key = Key(namespace, name)
        obj = self.objects[kind][key]
        obj["metadata"] |= {"resourceVersion": str(next(self._version)), "deletionTimestamp": self._clock()}
        if not obj["metadata"].get("finalizers"):
            del self.objects[kind][key]
            self._delivered(kind, obj, deleted=True)
        else:
            self._delivered(kind, obj, deleted=False)

    # -- the port ---------------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:
        self._refused("get", kind, name)
        return copy.deepcopy(self._one(kind, namespace, name))

    async def list(self, kind: Kind, namespace: str = "", *, selector: str = "", metadata_only: bool = False) -> AsyncIterator[Page]:
        self._refused("list", kind, "")
        label, _, value = selector.partition("=")
        found = [
            copy.deepcopy(obj)
            for key, obj in self.objects.get(kind, {}).items()
            if key.namespace == (namespace or key.namespace) and (not label or obj["metadata"].get("labels", {}).get(label) == value)
        ]
        yield Page(found, str(next(self._version)))

    async def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        meta = body["metadata"]
        name = meta.get("name") or f"{meta['generateName']}{next(self._version)}"
        self._refused("create", kind, name)
        if Key(namespace, name) in self.objects.get(kind, {}):
            raise AlreadyExists(f"{kind.plural} {name} already exists")
        made = self.put(kind, {**body, "metadata": {**meta, "name": name}})
        self._wrote("create", kind, name)
        return made

    async def patch(self, kind: Kind, namespace: str, name: str, body: Obj, *, subresource: str = "") -> Obj:
        self._refused("patch", kind, name)
        old = self._one(kind, namespace, name)
        for field in ("uid", "resourceVersion"):
            wanted = body.get("metadata", {}).get(field)
            if wanted is not None and wanted != old["metadata"][field]:
                raise Conflict(f"{kind.plural} {name}: {field}")
        new = _merged(old, {"status": body["status"]} if subresource == "status" else body)
        if new != old:
            self.put(kind, new)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            del self.objects[kind][Key(namespace, name)]
            self._delivered(kind, new, deleted=True)
        self._wrote("patch", kind, name)
        return copy.deepcopy(new if Key(namespace, name) not in self.objects[kind] else self._one(kind, namespace, name))

    async def replace(self, kind: Kind, namespace: str, name: str, body: Obj) -> Obj:
        raise NotImplementedError

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, version: str = "") -> None:
        self._refused("delete", kind, name)
        obj = self.objects.get(kind, {}).get(Key(namespace, name))
        if obj is not None:
            if obj["metadata"]["uid"] != uid:
                raise Conflict(f"{kind.plural} {name}: uid")
            self.remove(kind, name, namespace)
        self._wrote("delete", kind, name)

    # -- within -----------------------------------------------------------------------------------------------------------

    def _one(self, kind: Kind, namespace: str, name: str) -> Obj:
        try:
            return self.objects.get(kind, {})[Key(namespace, name)]
        except KeyError:
            raise NotFound(f"{kind.plural} {name} not found") from None

    def _refused(self, verb: str, kind: Kind, name: str) -> None:
        error = self.refuse(verb, kind, name)
        if error is not None:
            raise error

    def _wrote(self, verb: str, kind: Kind, name: str) -> None:
        self.writes.append((verb, kind.plural, name))
        if self.die_after is not None:
            self.die_after -= 1
            if self.die_after <= 0:
                self.die_after = None
                raise Died

    def _delivered(self, kind: Kind, obj: Obj, *, deleted: bool) -> None:
        for cache in self._caches:
            if cache.kind == kind:
                cache.deliver(copy.deepcopy(obj), deleted=deleted)


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = _merged(new.get(name), value)
    return new
