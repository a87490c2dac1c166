"""Names that the operator gives: to knowledge bases in the orchestrator, principals, child Jobs, runners and orders.

Every name is a pure function of what it is given, so that two replicas, or one that was restarted, arrive at the same one: the second
create of the same thing is refused by the API server, and that is what keeps it from happening twice.
"""

from __future__ import annotations

import hashlib
import re

GROUP = "shield.hx-citadel.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MANAGER = "shield-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
INGESTJOB_LABEL = f"{GROUP}/ingestjob"
INGEST_LABEL = f"{GROUP}/ingest"
"""On a PersistentVolumeClaim, with the value `true`: its owner agrees that it is read."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
ORDER_ANNOTATION = f"{GROUP}/order"
CONTAINER = "worker"

_BASE_MAX = 40
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NOT_SLUG = re.compile(r"[^a-z0-9-]")


def principal(namespace: str) -> str:
    """Who a namespace is in the orchestrator."""
    return f"k8s:{namespace}"


def kb_name(namespace: str, name: str) -> str:
    """What a KnowledgeBase is called in the orchestrator: readable where that is unambiguous, else with a hash.

    The plain form holds `--` once and the other twice, so neither can be taken for the other.
    """
    plain = f"{namespace}--{name}"
    if len(plain) <= _BASE_MAX and all("--" not in part and _SLUG.fullmatch(part) for part in (namespace, name)):
        return plain
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:8]
    return f"{_cut(namespace)}--{_cut(name)}--{digest}"


def _cut(part: str) -> str:
    return _NOT_SLUG.sub("-", part)[:12].strip("-")


def job_name(ingestjob: str, attempt: int) -> str:
    """The child Job of an attempt, counted from 1."""
    return f"{ingestjob}-{attempt}"


def runner(uid: str) -> str:
    """Who alone may run the row of an IngestJob."""
    return f"ingestjob:{uid}"
