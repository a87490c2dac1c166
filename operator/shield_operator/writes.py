"""What is written into objects beside their children: a status, where it changed, and Events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from shield_operator.api.meta import Shape
from shield_operator.cluster import EVENTS, Cluster, ClusterError, Kind, Obj
from shield_operator.names import MANAGER

log = structlog.get_logger(__name__)
_MESSAGE = 1024


def status_patch(old: Shape, new: Shape) -> dict[str, Any]:
    """The merge patch that makes `old` into `new`; empty if nothing changed."""
    before, after = (status.model_dump(mode="json", by_alias=True, exclude_none=True) for status in (old, new))
    return {name: after.get(name) for name in {**before, **after} if before.get(name) != after.get(name)}


async def tell(cluster: Cluster, kind: Kind, obj: Obj, *, reason: str, message: str, warning: bool, now: datetime) -> None:
    """Write an Event about an object. One that is refused is logged, and that is all: nothing depends on Events."""
    meta = obj["metadata"]
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
        "reason": reason,
        "message": message[:_MESSAGE],
        "type": "Warning" if warning else "Normal",
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    try:
        await cluster.create(EVENTS, meta["namespace"], body)
    except ClusterError as error:
        log.warning("event_not_written", reason=reason, cause=error.cause)
