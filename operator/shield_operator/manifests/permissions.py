"""What the operator may do, each verb with its reason: the source of its ClusterRole, its Role and a table in the docs.

No secrets: a pod gets them by name from its own namespace, and whoever holds the operator's token cannot read one. No wildcard. The operator
writes no spec of a user but the finalizer of a KnowledgeBase, for which Kubernetes has no narrower verb than `patch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shield_operator.names import GROUP


@dataclass(frozen=True)
class Permission:
    """Verbs on resources of one API group."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str

    def rule(self) -> dict[str, Any]:
        """As a Role has it."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


READ = ("get", "list", "watch")

CLUSTER = (
    Permission(
        GROUP,
        ("ingestjobs",),
        (*READ, "create", "delete"),
        "follow them; create and prune a schedule's; remove finished ones after their time",
    ),
    Permission(GROUP, ("ingestschedules",), READ, "follow them"),
    Permission(GROUP, ("knowledgebases",), (*READ, "patch"), "follow them; set and clear the finalizer of deletionPolicy Delete"),
    Permission(GROUP, ("ingestjobs/status", "ingestschedules/status", "knowledgebases/status"), ("patch",), "say how things are"),
    Permission(
        GROUP,
        ("ingestjobs/finalizers", "ingestschedules/finalizers"),
        ("update",),
        "own children where owner references are guarded (OpenShift)",
    ),
    Permission("batch", ("jobs",), (*READ, "create", "patch", "delete"), "run an IngestJob, suspend and resume it, clean up"),
    Permission("", ("pods",), ("list",), "see why a pod waits, or how it exited"),
    Permission("", ("persistentvolumeclaims",), ("get",), "check a source's label"),
    Permission("", ("events",), ("create",), "Started, Running, Succeeded, Failed"),
)
"""In all namespaces that the operator watches."""

OWN_NAMESPACE = (Permission("coordination.k8s.io", ("leases",), ("get", "create", "update"), "agree on which replica leads"),)
"""In the operator's own namespace."""

ALL_KINDS = ("ingestjobs", "ingestschedules", "knowledgebases")
VIEWER = (Permission(GROUP, (*ALL_KINDS, *(f"{kind}/status" for kind in ALL_KINDS)), READ, "look"),)
EDITOR = (Permission(GROUP, ALL_KINDS, ("create", "update", "patch", "delete", "deletecollection"), "use"),)
