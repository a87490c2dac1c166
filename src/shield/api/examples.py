"""Example requests, by operation: shown in OpenAPI and docs/API_REFERENCE.md, and sent by the tests."""

from __future__ import annotations

from typing import Any

JOB_ID = "6f1c2a34-9b7e-4f0d-8a51-0d3a4a6f7c21"
DOCUMENT_ID = "2b0e6c1d-55a0-5c83-9c61-7f5b1f0a9d3e"
UPLOAD_ID = "a3c4f6b8-1d2e-4f3a-9b4c-5d6e7f809102"

BODIES: dict[str, dict[str, Any]] = {
    "ingest_async": {
        "knowledge_base": "default",
        "spec": {"type": "crawl", "url": "https://docs.example.org/", "max_pages": 50, "max_depth": 3},
    },
    "query": {"query": "How is a stuck pump restarted?", "mode": "mix"},
    "find": {"query": "pump restart", "limit": 5, "filters": {"kind": "crawl"}},
    "store_note": {"text": "The pump of hall 3 needs 20 s between two starts.", "source": "note:pump-hall-3", "metadata": {"team": "ops"}},
    "announce_upload": {"filename": "manual.pdf", "mime": "application/pdf"},
    "rebuild_knowledge_base": {"fresh": False},
    "reindex_knowledge_base": {"model": "bge-m3", "dim": 1024, "questions": ["How is a stuck pump restarted?"]},
    "create_knowledge_base": {"name": "team-handbook", "description": "How we work.", "graph": True},
    "ingest_job_progress": {"uids": ["3f1c0a52-0d55-4c4e-9a55-5a3f6f0d8c11"]},
    "cancel_ingest_jobs": {"uids": ["3f1c0a52-0d55-4c4e-9a55-5a3f6f0d8c11"]},
    "ensure_namespace_base": {"description": "How we work.", "graph": True, "embedding_model": "all-minilm-l6-v2", "embedding_dim": 384},
    "create_key": {"name": "the docs agent", "scopes": ["kb:read"], "knowledge_bases": ["team-handbook"], "expires_in_days": 90},
    "rotate_key": {"grace_seconds": 3600},
}
"""JSON bodies by operation id."""

PARAMETERS: dict[str, Any] = {
    "job_id": JOB_ID,
    "document_id": DOCUMENT_ID,
    "upload_id": UPLOAD_ID,
    "name": "team-handbook",
    "namespace": "team-a",
    "key_id": "k3v9x0ab",
    "token": "ONE-TIME-TOKEN",
}
"""Values of required path and query parameters."""

VARIABLES = {"job_id": "$job", "document_id": "$document", "upload_id": "$upload", "key_id": "$key", "token": "$token"}
"""What stands for them in docs/API_REFERENCE.md, where one call gives what the next one needs."""

REFUSED = {
    "cancel_job": "job.ended",
    "reindex_knowledge_base": "dependency.misconfigured",
    "flip_knowledge_base": "kb.nothing_to_flip",
    "rollback_knowledge_base": "kb.nothing_to_flip",
}
"""Operations that a fresh server refuses, by operation id: they need a running job, or another model."""


def body_examples(operation: str) -> dict[str, Any]:
    """The `openapi_examples` of an operation."""
    return {"example": {"value": BODIES[operation]}}
