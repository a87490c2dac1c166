"""The `Shield` port over REST: what the CLI, stdio and other processes use when an orchestrator runs somewhere.

Every method is one request (`transport.py`), and callers cannot tell a remote port from a local one by its errors. Uploads and events are
streams in both directions.

The principal is not sent by name: a server believes credentials. `credentials` makes them, per principal; a caller's own never travels on.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import httpx

from shield.auth import Principal
from shield.errors import InvalidRequest, KnowledgeBaseNameInvalid, UnknownKey
from shield.service.models import (
    ActiveIngestJobs,
    Answer,
    CollectionList,
    DocumentList,
    DocumentText,
    FindRequest,
    FindResult,
    Health,
    IngestJobList,
    IngestJobsCancelled,
    IngestJobUids,
    IngestRequest,
    JobList,
    JobView,
    KeyCreate,
    KeyCreated,
    KeyList,
    KeyRotate,
    KeyView,
    KnowledgeBaseCheck,
    KnowledgeBaseCreate,
    KnowledgeBaseHash,
    KnowledgeBaseList,
    KnowledgeBaseView,
    NamespaceBase,
    NamespaceBaseView,
    QueryRequest,
    RebuildRequest,
    ReindexRequest,
    StoreRequest,
    StoreResult,
    UploadCreate,
    UploadView,
)
from shield.service.transport import Credentials, Transport, error_of, events_of, form, model_of
from shield.settings import ClientSettings

_NAME = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LONG = 600.0  # seconds more that a check of a large index may take
_KEY_ID = re.compile(r"[a-z0-9]{8}", re.ASCII)


class RemoteShield:
    """A client of one orchestrator; use it as an async context manager, or call `aclose`.

    Args:
        base_url: address of the server, http or https.
        client: an httpx client to use (and leave open), for instance over `httpx.ASGITransport`; by default one of its own.
        settings: how long to wait.
        credentials: what to show as `Authorization: Bearer` for a principal; nothing by default.
        delegated: the credentials are this process's own, made for its callers (`HopTokens.mint`): when the server refuses one, the
            installation is at fault and not the caller.

    Raises:
        ConfigInvalid: the address is not an http or https URL.
    """

    def __init__(
        self,
        base_url: str,
        client: httpx.AsyncClient | None = None,
        settings: ClientSettings | None = None,
        credentials: Credentials | None = None,
        *,
        delegated: bool = False,
    ) -> None:
        self._http = Transport(base_url, client, settings or ClientSettings(), credentials, delegated=delegated)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the client was handed in."""
        await self._http.aclose()

    # -- intake and jobs ----------------------------------------------------------------------------------------------

    async def ingest(
        self,
        who: Principal,
        request: IngestRequest,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        local_caller: bool = False,
    ) -> JobView:
        """Accept a job. The server itself finds out whether the caller is local."""
        headers = {"Idempotency-Key": idempotency_key, "traceparent": traceparent}
        return await self._http.post(
            who, "lightrag/ingest-async", request, JobView, headers={k: v for k, v in headers.items() if v is not None}
        )

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        """A job; waits up to `wait` seconds for its end."""
        params = {"wait": wait, "outcomes_after": outcomes_after, "outcomes_limit": outcomes_limit}
        return await self._http.get(who, f"jobs/{job_id}", JobView, params, patience=wait)

    async def jobs(
        self,
        who: Principal,
        *,
        status: str | None = None,
        code: str | None = None,
        knowledge_base: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> JobList:
        """Jobs, newest first."""
        query = {"status": status, "code": code, "knowledge_base": knowledge_base, "limit": limit, "cursor": cursor}
        return await self._http.get(who, "jobs", JobList, query)

    async def events(
        self, who: Principal, job_id: UUID, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """(id, event, data) as they come; the server's keep-alive comments bound the silence."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        async with (
            self._http.streamed(who, "GET", f"jobs/{job_id}/events", headers=headers) as response,
            aclosing(events_of(response)) as events,
        ):
            async for event_id, event, data in events:
                if event == "error":
                    raise error_of(data, None)
                yield event_id, event, data

    async def cancel(self, who: Principal, job_id: UUID) -> JobView:
        """Ask a job to stop."""
        return await self._http.post(who, f"jobs/{job_id}/cancel", None, JobView)

    async def retry(self, who: Principal, job_id: UUID) -> JobView:
        """A new job from an old one."""
        return await self._http.post(who, f"jobs/{job_id}/retry", None, JobView)

    # -- search -------------------------------------------------------------------------------------------------------

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        """Passages for a query."""
        return await self._http.post(who, "find", request, FindResult)

    async def store(self, who: Principal, request: StoreRequest) -> StoreResult:
        """Store a note."""
        return await self._http.post(who, "notes", request, StoreResult)

    async def query(self, who: Principal, request: QueryRequest) -> Answer:
        """An answer with citations."""
        return await self._http.post(who, "lightrag/query", request, Answer)

    # -- documents and knowledge bases --------------------------------------------------------------------------------

    async def documents(
        self,
        who: Principal,
        *,
        knowledge_base: str = "default",
        source_prefix: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DocumentList:
        """Documents in order of source."""
        params = {"knowledge_base": knowledge_base, "source_prefix": source_prefix, "limit": limit, "cursor": cursor}
        return await self._http.get(who, "documents", DocumentList, params)

    async def document(
        self, who: Principal, document_id: UUID, *, knowledge_base: str = "default", offset: int = 0, max_tokens: int = 4000
    ) -> DocumentText:
        """A document's text."""
        params = {"knowledge_base": knowledge_base, "offset": offset, "max_tokens": max_tokens}
        return await self._http.get(who, f"documents/{document_id}", DocumentText, params)

    async def delete_document(self, who: Principal, document_id: UUID, *, knowledge_base: str = "default") -> JobView:
        """Delete a document, as a job."""
        return await self._http.call(who, "DELETE", f"documents/{document_id}", JobView, params={"knowledge_base": knowledge_base})

    async def knowledge_bases(self, who: Principal) -> KnowledgeBaseList:
        """All knowledge bases."""
        return await self._http.get(who, "knowledge-bases", KnowledgeBaseList)

    async def create_knowledge_base(self, who: Principal, request: KnowledgeBaseCreate) -> KnowledgeBaseView:
        """Make one."""
        return await self._http.post(who, "knowledge-bases", request, KnowledgeBaseView)

    async def delete_knowledge_base(self, who: Principal, name: str) -> JobView:
        """Delete one, as a job."""
        return await self._http.call(who, "DELETE", f"knowledge-bases/{_segment(name)}", JobView)

    async def knowledge_base_hash(self, who: Principal, name: str) -> KnowledgeBaseHash:
        """Its fingerprint."""
        return await self._http.get(who, f"knowledge-bases/{_segment(name)}/hash", KnowledgeBaseHash)

    async def collections(self, who: Principal, name: str) -> CollectionList:
        """The vector collections of a base."""
        return await self._http.get(who, f"knowledge-bases/{_segment(name)}/collections", CollectionList)

    async def check_knowledge_base(self, who: Principal, name: str) -> KnowledgeBaseCheck:
        """The index of a base against PostgreSQL; reads all of it."""
        return await self._http.get(who, f"knowledge-bases/{_segment(name)}/check", KnowledgeBaseCheck, patience=_LONG)

    async def rebuild_knowledge_base(self, who: Principal, name: str, request: RebuildRequest) -> JobView:
        """Restore a base's vectors, as a job."""
        return await self._http.post(who, f"knowledge-bases/{_segment(name)}/rebuild", request, JobView)

    async def reindex_knowledge_base(self, who: Principal, name: str, request: ReindexRequest) -> JobView:
        """Move a base to another embedding model, as a job."""
        return await self._http.post(who, f"knowledge-bases/{_segment(name)}/reindex", request, JobView)

    async def flip_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        """Answer from the collection that is ready."""
        return await self._http.post(who, f"knowledge-bases/{_segment(name)}/flip", None, CollectionList)

    async def rollback_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        """Answer from the collection before the last flip again."""
        return await self._http.post(who, f"knowledge-bases/{_segment(name)}/rollback", None, CollectionList)

    async def discard_collections(self, who: Principal, name: str) -> CollectionList:
        """Give up all collections but the live one."""
        return await self._http.post(who, f"knowledge-bases/{_segment(name)}/discard", None, CollectionList)

    # -- for an operator ------------------------------------------------------------------------------------------------

    async def ingest_job_progress(self, who: Principal, request: IngestJobUids) -> IngestJobList:
        """Rows of IngestJobs."""
        return await self._http.post(who, "ingest-jobs/progress", request, IngestJobList)

    async def cancel_ingest_jobs(self, who: Principal, request: IngestJobUids) -> IngestJobsCancelled:
        """Cancel rows of IngestJobs."""
        return await self._http.post(who, "ingest-jobs/cancel", request, IngestJobsCancelled)

    async def active_ingest_jobs(
        self, who: Principal, *, after: str | None = None, limit: int = 1000, namespaces: Sequence[str] | None = None
    ) -> ActiveIngestJobs:
        """IngestJobs that have not ended."""
        query = {"after": after, "limit": limit, "namespaces": namespaces}
        return await self._http.get(who, "ingest-jobs/active", ActiveIngestJobs, query)

    async def ensure_namespace_base(self, who: Principal, namespace: str, name: str, request: NamespaceBase) -> NamespaceBaseView:
        """The base of a namespace."""
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidRequest("namespace: not the name of a namespace.", fields=["namespace"])
        path = f"namespaces/{namespace}/knowledge-bases/{_segment(name)}"
        headers = {"Content-Type": "application/json"}
        return await self._http.call(who, "PUT", path, NamespaceBaseView, headers=headers, content=request.model_dump_json().encode())

    # -- keys ---------------------------------------------------------------------------------------------------------

    async def keys(self, who: Principal) -> KeyList:
        """All API keys, without their secrets."""
        return await self._http.get(who, "keys", KeyList)

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        """Make an API key."""
        return await self._http.post(who, "keys", request, KeyCreated)

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        """End a key at once."""
        return await self._http.call(who, "DELETE", f"keys/{_key_segment(key_id)}", KeyView)

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        """A successor with the same rights."""
        return await self._http.post(who, f"keys/{_key_segment(key_id)}/rotate", request, KeyCreated)

    # -- uploads and health -------------------------------------------------------------------------------------------

    async def create_upload(self, who: Principal, request: UploadCreate) -> UploadView:
        """Announce a file."""
        return await self._http.post(who, "uploads/announce", request, UploadView)

    async def put_upload(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> UploadView:
        """Store an announced file."""
        headers = {"Content-Type": "application/octet-stream"}
        return await self._http.call(
            None, "PUT", f"uploads/{upload_id}/content", UploadView, params={"token": token}, headers=headers, content=content
        )

    async def upload(self, who: Principal, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> UploadView:
        """Store a file in one go."""
        boundary = uuid4().hex
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return await self._http.call(who, "POST", "uploads", UploadView, headers=headers, content=form(boundary, filename, mime, content))

    async def health(self) -> Health:
        """What works; `down` is an answer, not an error."""
        async with self._http.streamed(None, "GET", "readyz", accept=(200, 503)) as response:
            return await model_of(response, Health)


def _segment(name: str) -> str:
    """A knowledge base's name as a path segment; what could be read as another route never leaves."""
    if not _NAME.fullmatch(name):
        raise KnowledgeBaseNameInvalid
    return name


def _key_segment(key_id: str) -> str:
    if not _KEY_ID.fullmatch(key_id):
        raise UnknownKey
    return key_id
