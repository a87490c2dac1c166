"""The child Job: one object that carries everything its pod needs, so that a single write makes it.

A pod begins as the platform engineer's template (environment, Secrets, volumes). On top come the few things that an IngestJob's author may choose:
where it runs, how much it may use, labels and annotations that nobody else reads. Last, and not to be overridden by either, comes what makes it
safe and ours: the restricted security profile, no ServiceAccount token, the command, the order, a read-only source, scratch volumes.

Retries are the Job's: an exit code that no retry mends fails it at once, a disruption or a handed-back job (143) counts for nothing, everything
else counts towards `backoffLimit`. It has no TTL: the operator reads its end first.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from shield_operator.api.ingestjob import IngestJobSpec
from shield_operator.api.meta import OwnerReference
from shield_operator.api.pods import PodTemplate
from shield_operator.cluster import Obj
from shield_operator.ingestjobs.order import SOURCE_ROOT, claim_of, order_of
from shield_operator.ingestjobs.verdict import EXIT_REASONS
from shield_operator.ingestjobs.view import KUEUE, Subject
from shield_operator.names import (
    API_VERSION,
    ATTEMPT_LABEL,
    CONTAINER,
    INGESTJOB_LABEL,
    MANAGED_BY_LABEL,
    MANAGER,
    ORDER_ANNOTATION,
    job_name,
)
from shield_operator.quantity import parse_quantity
from shield_operator.settings import ConfigurationError

UID = 10001
PARTIAL, DRAINED = 20, 143
GRACE = 70
_METRICS_PORT = 9090
_ORDER_DIRECTORY, _ORDER_FILE = "/etc/shield/order", "order.json"
_RESOURCES: Obj = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}


@dataclass(frozen=True)
class Pods:
    """What all pods have in common."""

    image: str
    template: Obj = field(default_factory=dict)
    """The platform engineer's PodTemplateSpec."""
    scratch_limit: str = "10Gi"


def read_template(path: Path | None) -> Obj:
    """The platform engineer's pod template.

    Raises:
        ConfigurationError: the file cannot be read, or is no pod template.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The pod template cannot be read: {error}") from error
    if not isinstance(content, dict) or not set(content) <= {"metadata", "spec"} or not isinstance(content.get("spec", {}), dict):
        raise ConfigurationError(f"{path} is no pod template: a mapping of metadata and spec.")
    return content


def excess(template: PodTemplate | None, maxima: dict[str, Decimal]) -> str:
    """What a pod template asks for beyond the maxima, as a sentence; empty if nothing."""
    if template is None or template.resources is None:
        return ""
    for kind, amounts in (("requests", template.resources.requests), ("limits", template.resources.limits)):
        for name, amount in (amounts or {}).items():
            if parse_quantity(amount) > maxima.get(name, Decimal(0)):
                return f"podTemplate.resources.{kind}.{name} is {amount}; the operator's maximum is {maxima.get(name, Decimal(0)).normalize():f}."
    return ""


def job_for(subject: Subject, spec: IngestJobSpec, number: int, pods: Pods) -> Obj:
    """The Job of an attempt; a function of its arguments."""
    meta = subject.meta
    owner = OwnerReference(
        api_version=API_VERSION, kind="IngestJob", name=meta.name, uid=meta.uid, controller=True, block_owner_deletion=True
    )
    kueue = {key: value for key, value in meta.labels.items() if key.startswith(KUEUE)}
    labels = {MANAGED_BY_LABEL: MANAGER, INGESTJOB_LABEL: meta.name, ATTEMPT_LABEL: str(number)}
    final = sorted({*EXIT_REASONS} - (set() if spec.strict else {PARTIAL}))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(meta.name, number),
            "namespace": meta.namespace,
            "labels": {**kueue, **labels},
            "annotations": {key: value for key, value in meta.annotations.items() if key.startswith(KUEUE)},
            "ownerReferences": [owner.to_json()],
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": spec.backoff_limit,
            "activeDeadlineSeconds": spec.active_deadline_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": final}},
                    {"action": "Ignore", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [DRAINED]}},
                ]
            },
            "suspend": subject.queued,
            "template": _pod(subject, spec, labels, pods),
        },
    }


def _pod(subject: Subject, spec: IngestJobSpec, labels: dict[str, str], pods: Pods) -> Obj:
    base = deepcopy(pods.template)
    chosen = spec.pod_template or PodTemplate()
    theirs = chosen.metadata.to_json() if chosen.metadata else {}
    base_meta, pod = base.get("metadata") or {}, base.get("spec") or {}
    if chosen.node_selector:
        pod["nodeSelector"] = {**chosen.node_selector, **(pod.get("nodeSelector") or {})}
    if chosen.tolerations:
        pod["tolerations"] = [*(pod.get("tolerations") or ()), *(one.to_json() for one in chosen.tolerations)]
    if chosen.affinity:
        pod["affinity"] = chosen.affinity.to_json()
    if chosen.topology_spread_constraints:
        pod["topologySpreadConstraints"] = [one.to_json() for one in chosen.topology_spread_constraints]
    if chosen.priority_class_name:
        pod["priorityClassName"] = chosen.priority_class_name
    claim = claim_of(spec)
    pod["containers"] = _containers(pod.get("containers") or [], spec, chosen, pods, with_source=claim is not None)
    pod["volumes"] = _merged(pod.get("volumes") or [], _volumes(pods, claim.claim_name if claim else None), "name")
    pod["securityContext"] = {
        "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "fsGroupChangePolicy": "OnRootMismatch",
        **(pod.get("securityContext") or {}),
        "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    pod |= {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
    }
    return {
        "metadata": {
            "labels": {**theirs.get("labels", {}), **(base_meta.get("labels") or {}), **labels},
            "annotations": {
                **theirs.get("annotations", {}),
                **(base_meta.get("annotations") or {}),
                ORDER_ANNOTATION: order_of(subject.meta, spec),
            },
        },
        "spec": pod,
    }


def _containers(given: list[Obj], spec: IngestJobSpec, chosen: PodTemplate, pods: Pods, *, with_source: bool) -> list[Obj]:
    """The platform engineer's containers, with ours completed (or added in front)."""
    base = next((one for one in given if one.get("name") == CONTAINER), {})
    others = [one for one in given if one.get("name") != CONTAINER]
    asked = chosen.resources.to_json() if chosen.resources else {}
    standard = base.get("resources") or _RESOURCES
    mounts: list[Obj] = [
        {"name": "order", "mountPath": _ORDER_DIRECTORY, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # in the pod, and its own
        {"name": "data", "mountPath": "/var/lib/shield"},
        *([{"name": "source", "mountPath": SOURCE_ROOT, "readOnly": True}] if with_source else []),
    ]
    env = [
        {"name": "HOME", "value": "/tmp"},  # noqa: S108
        # Below the mount point: the kubelet owns an emptyDir's top, and Shield wants a data directory that is its own.
        {"name": "SHIELD_DATA_DIR", "value": "/var/lib/shield/data"},
        # The pod's own address, which the kubelet's probes and Prometheus reach.
        {"name": "SHIELD_HOST", "value": "0.0.0.0"},  # noqa: S104
        {"name": "SHIELD_METRICS_PORT", "value": str(_METRICS_PORT)},
    ]
    if with_source:
        env.append({"name": "SHIELD_DOCUMENT_ROOT", "value": SOURCE_ROOT})
    ours = {
        **base,
        "name": CONTAINER,
        "image": pods.image,
        "args": ["run-job", "--spec", f"{_ORDER_DIRECTORY}/{_ORDER_FILE}", *(["--strict"] if spec.strict else [])],
        "env": _merged(base.get("env") or [], env, "name"),
        "ports": _merged(base.get("ports") or [], [{"name": "metrics", "containerPort": _METRICS_PORT, "protocol": "TCP"}], "name"),
        "resources": {kind: {**(standard.get(kind) or {}), **asked.get(kind, {})} for kind in ("requests", "limits")},
        "securityContext": {
            **(base.get("securityContext") or {}),
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _merged(base.get("volumeMounts") or [], mounts, "mountPath"),
    }
    ours.pop("command", None)  # the image's entry point stays process 1: it passes SIGTERM on and reaps children
    return [ours, *others]


def _volumes(pods: Pods, claim: str | None) -> list[Obj]:
    scratch = {"sizeLimit": pods.scratch_limit}
    field_ref = {"fieldPath": f"metadata.annotations['{ORDER_ANNOTATION}']"}
    return [
        {"name": "order", "downwardAPI": {"items": [{"path": _ORDER_FILE, "fieldRef": field_ref}]}},
        {"name": "tmp", "emptyDir": scratch},
        {"name": "data", "emptyDir": scratch},
        *([{"name": "source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}] if claim else []),
    ]


def _merged(given: list[Obj], ours: list[Obj], by: str) -> list[Any]:
    """Lists of named items: ours replace what has their name."""
    names = {one[by] for one in ours}
    return [*(one for one in given if one.get(by) not in names), *ours]
