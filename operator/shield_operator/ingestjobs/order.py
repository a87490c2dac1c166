"""The order: what the pod is told to do, as `shield run-job --spec` reads it (one JSON object in an annotation of the pod)."""

from __future__ import annotations

import json
from typing import Any

from shield_operator.api.ingestjob import ClaimSource, DocumentsSource, IngestJobSpec, WebSource
from shield_operator.api.meta import ObjectMeta
from shield_operator.names import kb_name, principal

SOURCE_ROOT = "/source"
"""Where a claim is mounted, which is the document root that paths are relative to."""


def order_of(meta: ObjectMeta, spec: IngestJobSpec) -> str:
    """The order of an IngestJob: a function of its uid, namespace and immutable spec, so every attempt gets the same one."""
    order: dict[str, Any] = {
        "uid": meta.uid,
        "principal": principal(meta.namespace),
        "knowledge_base": kb_name(meta.namespace, spec.knowledge_base),
        "spec": _spec(spec),
    }
    if spec.budget_tokens is not None:
        order["budget"] = {"tokens": spec.budget_tokens}
    if spec.strict:
        order["strict"] = True
    return json.dumps(order, ensure_ascii=False, separators=(",", ":"))


def claim_of(spec: IngestJobSpec) -> ClaimSource | None:
    """The claim that the pod reads, if it does."""
    return spec.source.documents.persistent_volume_claim if spec.source.documents else None


def _spec(spec: IngestJobSpec) -> dict[str, Any]:
    source = _web(spec.source.web) if spec.source.web is not None else _documents(spec.source.documents)
    return source | ({"metadata": dict(spec.metadata)} if spec.metadata else {})


def _web(web: WebSource) -> dict[str, Any]:
    given = web.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if "accept_crawl_delay_seconds" in given:
        given["accept_crawl_delay"] = float(given.pop("accept_crawl_delay_seconds"))
    return {"type": "crawl", **given}


def _documents(documents: DocumentsSource | None) -> dict[str, Any]:
    if documents is None:
        raise ValueError("a source is web or documents")
    if documents.urls is not None:
        return {"type": "documents", "urls": list(documents.urls)}
    if documents.upload_id is not None:
        return {"type": "documents", "upload_id": documents.upload_id}
    claim = documents.persistent_volume_claim
    if claim is None:
        raise ValueError("documents are urls, a claim or an upload")
    # The claim is part of each document's name, or files of equal paths in two claims would replace each other.
    found: dict[str, Any] = {"type": "documents", "path": claim.path or ".", "source": f"pvc:{claim.claim_name}/"}
    return found | {name: list(globs) for name, globs in (("include", claim.include), ("exclude", claim.exclude)) if globs}
