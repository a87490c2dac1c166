"""The last pod of a Job: how it ended, or why it does not run. Asked for only when a decision hangs on it; pods are not watched."""

from __future__ import annotations

import re

from shield_operator.cluster import PODS, Cluster, Obj
from shield_operator.ingestjobs.view import Pod
from shield_operator.names import CONTAINER

_ERROR = re.compile(r"^shield: .*\[([a-z][a-z0-9_]{0,31}\.[a-z][a-z0-9_]{0,63})\]$", re.MULTILINE)
_WAITING = 300


async def last_pod(cluster: Cluster, namespace: str, job: str) -> Pod | None:
    """The youngest pod of a Job; None if it has none (any more).

    Raises:
        ClusterError: the API server did not answer.
    """
    youngest: Obj | None = None
    async for page in cluster.list(PODS, namespace, selector=f"batch.kubernetes.io/job-name={job}"):
        for pod in page.items:
            if youngest is None or pod["metadata"]["creationTimestamp"] >= youngest["metadata"]["creationTimestamp"]:
                youngest = pod
    return None if youngest is None else pod_of(youngest)


def pod_of(obj: Obj) -> Pod:
    """Read a pod."""
    status = obj.get("status") or {}
    state: Obj = next((one.get("state") or {} for one in status.get("containerStatuses") or () if one.get("name") == CONTAINER), {})
    ended, waits = state.get("terminated") or {}, state.get("waiting") or {}
    return Pod(
        exit_code=ended.get("exitCode"),
        oom_killed=ended.get("reason") == "OOMKilled",
        error_code=_error_code(ended.get("message") or ""),
        waiting=_why(waits.get("reason"), waits.get("message")) or _unscheduled(status),
    )


def _unscheduled(status: Obj) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _why(condition.get("reason"), condition.get("message"))
    return ""


def _why(reason: str | None, message: str | None) -> str:
    return ": ".join(part for part in (reason, message) if part)[:_WAITING]


def _error_code(log: str) -> str:
    """The stable code behind the last error that `shield` printed: `shield: sentence. [code]`."""
    found = _ERROR.findall(log)
    return str(found[-1]) if found else ""
