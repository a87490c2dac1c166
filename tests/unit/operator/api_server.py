"""`MemoryCluster` with the rest that leadership and IngestJobs rely on: replacing under a resourceVersion, deleting under one, garbage collection."""

from __future__ import annotations

from shield_operator.cluster import Conflict, Key, Kind, Obj
from tests.unit.operator.memory_cluster import MemoryCluster


class ApiServer(MemoryCluster):
    """What an owner leaves behind goes with it."""

    async def replace(self, kind: Kind, namespace: str, name: str, body: Obj) -> Obj:
        self._refused("replace", kind, name)
        if body["metadata"]["resourceVersion"] != self._one(kind, namespace, name)["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind.plural} {name}: resourceVersion")
        made = self.put(kind, body)
        self._wrote("replace", kind, name)
        return made

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, version: str = "") -> None:
        found = self.objects.get(kind, {}).get(Key(namespace, name))
        if found is not None and version and found["metadata"]["resourceVersion"] != version:
            raise Conflict(f"{kind.plural} {name}: resourceVersion")
        await super().delete(kind, namespace, name, uid=uid)

    def remove(self, kind: Kind, name: str, namespace: str = "team") -> None:
        uid = self.objects[kind][Key(namespace, name)]["metadata"]["uid"]
        super().remove(kind, name, namespace)
        for child, objects in list(self.objects.items()):
            for key, obj in list(objects.items()):
                if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences") or ()):
                    self.remove(child, key.name, key.namespace)
