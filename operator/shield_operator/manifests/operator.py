"""Everything that the operator needs on a cluster besides the CRDs, as plain manifests: a namespace, its rights, two replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from shield_operator import __version__
from shield_operator.manifests.permissions import CLUSTER, EDITOR, OWN_NAMESPACE, VIEWER, Permission
from shield_operator.names import MANAGER

NAME = MANAGER
UID = 10001
HEALTH, METRICS = 8081, 9090
TEMPLATE_DIRECTORY, KEY_DIRECTORY = "/etc/shield/pod", "/etc/shield/operator"


@dataclass(frozen=True)
class Options:
    """What differs between clusters."""

    namespace: str = "shield-system"
    image: str = f"{NAME}:{__version__}"
    """The operator's own."""
    worker_image: str = f"shield-server:{__version__}"
    """What an IngestJob's pod runs."""
    orchestrator_url: str = "http://shield-api:8001"
    """Where the operator reads progress."""
    api_key_secret: str = NAME
    """Secret in that namespace with an `api-key` for the orchestrator, scope admin; empty: the orchestrator asks for none."""


def operator_manifests(options: Options) -> list[dict[str, Any]]:
    """All objects, in the order in which they can be applied."""
    return [
        _namespace(options),
        {**_object("v1", "ServiceAccount", NAME, options.namespace), "automountServiceAccountToken": False},
        *_rights(options),
        *_user_roles(),
        _pod_template(options),
        _deployment(options),
        _disruption_budget(options),
    ]


def _object(api_version: str, kind: str, name: str, namespace: str | None = None, labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    metadata["labels"] = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "shield", **(labels or {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _namespace(options: Options) -> dict[str, Any]:
    enforced = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return _object("v1", "Namespace", options.namespace, labels=enforced)


def _rights(options: Options) -> list[dict[str, Any]]:
    rbac = "rbac.authorization.k8s.io"
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}]

    def binding(kind: str, role: str, namespace: str | None) -> dict[str, Any]:
        reference = {"apiGroup": rbac, "kind": role, "name": NAME}
        return {**_object(f"{rbac}/v1", kind, NAME, namespace), "roleRef": reference, "subjects": subjects}

    return [
        {**_object(f"{rbac}/v1", "ClusterRole", NAME), "rules": _rules(CLUSTER)},
        binding("ClusterRoleBinding", "ClusterRole", None),
        {**_object(f"{rbac}/v1", "Role", NAME, options.namespace), "rules": _rules(OWN_NAMESPACE)},
        binding("RoleBinding", "Role", options.namespace),
    ]


def _user_roles() -> list[dict[str, Any]]:
    """What `view`, `edit` and `admin` of a namespace mean for our kinds: who may edit a namespace may ingest into it."""
    prefix = "rbac.authorization.k8s.io/aggregate-to"
    api = "rbac.authorization.k8s.io/v1"
    view = _object(api, "ClusterRole", "shield-view", labels={f"{prefix}-{role}": "true" for role in ("view", "edit", "admin")})
    edit = _object(api, "ClusterRole", "shield-edit", labels={f"{prefix}-{role}": "true" for role in ("edit", "admin")})
    return [{**view, "rules": _rules(VIEWER)}, {**edit, "rules": _rules(EDITOR)}]


def _rules(permissions: tuple[Permission, ...]) -> list[dict[str, Any]]:
    return [permission.rule() for permission in permissions]


def _pod_template(options: Options) -> dict[str, Any]:
    """The platform engineer's part of an IngestJob's pod; the operator adds the restricted security settings and the order."""
    template = {
        "spec": {
            "containers": [
                {
                    "name": "worker",
                    "env": [{"name": "SHIELD_MODE", "value": "server"}],
                    # In the namespace of the IngestJob: SHIELD_POSTGRES_DSN, SHIELD_REDIS_URL, SHIELD_QDRANT_URL, SHIELD_QDRANT_API_KEY.
                    "envFrom": [{"secretRef": {"name": "shield-worker"}}],
                    "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
                }
            ]
        }
    }
    data = {"pod.yaml": yaml.safe_dump(template, sort_keys=False)}
    return {**_object("v1", "ConfigMap", f"{NAME}-pod", options.namespace), "data": data}


def _deployment(options: Options) -> dict[str, Any]:
    selector = {"app.kubernetes.io/name": NAME}
    return {
        **_object("apps/v1", "Deployment", NAME, options.namespace),
        "spec": {
            "replicas": 2,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": {**selector, "app.kubernetes.io/part-of": "shield"}},
                "spec": {
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": True,
                    "terminationGracePeriodSeconds": 15,  # it releases its lease and stops in less than 5
                    "securityContext": {
                        "runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": selector},
                            "matchLabelKeys": ["pod-template-hash"],
                        }
                    ],
                    "containers": [_container(options)],
                    "volumes": [
                        {"name": "pod", "configMap": {"name": f"{NAME}-pod"}},
                        *([{"name": "key", "secret": {"secretName": secret, "defaultMode": 0o440}}] if (secret := options.api_key_secret) else []),
                        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                    ],
                },
            },
        },
    }  # fmt: skip


def _container(options: Options) -> dict[str, Any]:
    return {
        "name": "operator",
        "image": options.image,
        "args": ["run"],
        "env": [
            {"name": "SHIELD_OPERATOR_ORCHESTRATOR_URL", "value": options.orchestrator_url},
            *([{"name": "SHIELD_OPERATOR_API_KEY_FILE", "value": f"{KEY_DIRECTORY}/api-key"}] if options.api_key_secret else []),
            {"name": "SHIELD_OPERATOR_WORKER_IMAGE", "value": options.worker_image},
            {"name": "SHIELD_OPERATOR_POD_TEMPLATE_FILE", "value": f"{TEMPLATE_DIRECTORY}/pod.yaml"},
        ],
        "ports": [{"name": "health", "containerPort": HEALTH}, {"name": "metrics", "containerPort": METRICS}],
        # Liveness is the event loop's; a quiet cluster or an absent API server restarts nothing.
        "livenessProbe": _probe("/healthz", failures=6),
        "readinessProbe": _probe("/readyz", failures=3),
        "startupProbe": {**_probe("/healthz", failures=30), "periodSeconds": 2},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "pod", "mountPath": TEMPLATE_DIRECTORY, "readOnly": True},
            *([{"name": "key", "mountPath": KEY_DIRECTORY, "readOnly": True}] if options.api_key_secret else []),
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 (the pod's own)
        ],
    }


def _probe(path: str, *, failures: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "health"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": failures}


def _disruption_budget(options: Options) -> dict[str, Any]:
    return {
        **_object("policy/v1", "PodDisruptionBudget", NAME, options.namespace),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
        },
    }
