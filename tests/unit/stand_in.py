"""A small stand-in of the `Shield` port for plumbing tests: it records what it is asked, and answers canned models or raises."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shield.auth import Principal, Scope
from shield.service.models import (
    ActiveIngestJobs,
    Answer,
    Citation,
    CollectionCheck,
    CollectionList,
    CollectionView,
    DependencyHealth,
    DocumentList,
    DocumentText,
    DocumentView,
    EmbeddingView,
    FindRequest,
    FindResult,
    Health,
    IngestJobList,
    IngestJobsCancelled,
    IngestJobUids,
    IngestJobView,
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
    Passage,
    ProgressView,
    QueryRequest,
    RebuildRequest,
    ReindexRequest,
    ReindexView,
    StoreRequest,
    StoreResult,
    UploadCreate,
    UploadView,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = UUID("6f1c2a34-9b7e-4f0d-8a51-0d3a4a6f7c21")
DOCUMENT = UUID("2b0e6c1d-55a0-5c83-9c61-7f5b1f0a9d3e")
UPLOAD = UUID("a3c4f6b8-1d2e-4f3a-9b4c-5d6e7f809102")


def a_job(job_id: UUID = JOB, **changes: Any) -> JobView:
    values: dict[str, Any] = {
        "job_id": job_id, "status": "pending", "status_url": f"/jobs/{job_id}", "poll_after_seconds": 1.5, "knowledge_base": "default",
        "kind": "crawl", "stage": "queued", "priority": "normal", "progress": ProgressView(pages_found=3), "created_at": NOW,
    }  # fmt: skip
    return JobView(**(values | changes))


def a_collection_list(name: str) -> CollectionList:
    return CollectionList(knowledge_base=name, collections=[CollectionView(model="m", dim=8, state="live", keep_until=NOW)])


def a_document() -> DocumentView:
    return DocumentView(
        document_id=DOCUMENT, source="https://docs.example.org/a", kind="crawl", title="Ä", mime="text/html", revision=1, chunks=2, bytes=30,
        updated_at=NOW, knowledge_base="default",
    )  # fmt: skip


def a_knowledge_base(name: str = "default") -> KnowledgeBaseView:
    return KnowledgeBaseView(
        id=DOCUMENT, name=name, description="", graph=True, embedding_model="m", embedding_dim=384, documents=1, chunks=2, created_at=NOW
    )


def a_key(key_id: str = "k3v9x0ab") -> KeyView:
    return KeyView(id=key_id, name="n", principal="key:k3v9x0ab", scopes=[Scope.KB_READ], valid=True, created_by="local", created_at=NOW)


def an_ingest_job(uid: str) -> IngestJobView:
    return IngestJobView(
        uid=uid, job_id=JOB, status="processing", stage="acquire", progress=ProgressView(documents=2), attempts=1, updated_at=NOW
    )


def a_namespace_base(namespace: str, name: str) -> NamespaceBaseView:
    embedding = EmbeddingView(model="m", dim=8)
    return NamespaceBaseView(
        id=DOCUMENT, name=name, owner=f"k8s:{namespace}", description="", graph=True, documents=1, chunks=2, embedding=embedding,
        collections=a_collection_list(name).collections, reindex=ReindexView(embedding=embedding, state="ready", job_id=JOB), created_at=NOW,
    )  # fmt: skip


class StandIn:
    """Implements `Shield`; `calls` holds (method, arguments), `raises` is raised by every method while set."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.raises: Exception | None = None
        self.stuck: asyncio.Event | None = None
        """While there is one, every method waits for it, having set `reached`."""
        self.reached = asyncio.Event()
        self.health_status = "ok"
        self.script: list[tuple[str, str, dict[str, Any]] | Exception] = []
        """What `events` yields; an exception in it is raised at its place."""
        self.hold = asyncio.Event()
        self.hold.set()
        """While clear, `events` waits after its first event."""
        self.events_closed = asyncio.Event()
        self.progress = asyncio.Event()
        """Set as soon as an upload's first chunk has arrived."""
        self.chunks: list[int] = []
        self.received = 0
        self.digest = hashlib.sha256()

    async def _note(self, method: str, **arguments: Any) -> None:
        self.calls.append((method, arguments))
        if self.stuck is not None:
            self.reached.set()
            await self.stuck.wait()
        if self.raises is not None:
            raise self.raises

    async def ingest(
        self,
        who: Principal,
        request: IngestRequest,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        local_caller: bool = False,
    ) -> JobView:
        await self._note(
            "ingest", who=who, request=request, idempotency_key=idempotency_key, traceparent=traceparent, local_caller=local_caller
        )
        return a_job(knowledge_base=request.knowledge_base)

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        await self._note("job", who=who, job_id=job_id, wait=wait, outcomes_after=outcomes_after, outcomes_limit=outcomes_limit)
        return a_job(job_id, status="processing", stage="acquire")

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
        await self._note("jobs", who=who, status=status, code=code, knowledge_base=knowledge_base, limit=limit, cursor=cursor)
        return JobList(jobs=[a_job()], next_cursor="next")

    async def events(
        self, who: Principal, job_id: UUID, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        await self._note("events", who=who, job_id=job_id, last_event_id=last_event_id)
        try:
            for item in self.script or [
                ("1-0", "snapshot", {"title": "Zeile\n\u2028zwei"}),
                ("1-1", "progress", {"n": 1}),
                ("1-2", "end", {}),
            ]:
                if isinstance(item, Exception):
                    raise item
                yield item
                await self.hold.wait()
        finally:
            self.events_closed.set()

    async def cancel(self, who: Principal, job_id: UUID) -> JobView:
        await self._note("cancel", who=who, job_id=job_id)
        return a_job(job_id, cancel_requested=True)

    async def retry(self, who: Principal, job_id: UUID) -> JobView:
        await self._note("retry", who=who, job_id=job_id)
        return a_job(retry_of=job_id)

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        await self._note("find", who=who, request=request)
        passage = Passage(text="Text", source="s", document_id=DOCUMENT, chunk=0, start=0, end=4, score=0.5, metadata={"team": "ops"})
        return FindResult(found=True, results=[passage], knowledge_base=request.knowledge_base)

    async def store(self, who: Principal, request: StoreRequest) -> StoreResult:
        await self._note("store", who=who, request=request)
        return StoreResult(document_id=DOCUMENT, source="text:1", chunks=1, changed=True, knowledge_base=request.knowledge_base)

    async def query(self, who: Principal, request: QueryRequest) -> Answer:
        await self._note("query", who=who, request=request)
        citation = Citation(number=1, quote="Text", source="s", document_id=DOCUMENT, chunk=0, start=0, end=4)
        return Answer(
            found=True, kind="extractive", answer="Text [1]", citations=[citation], mode=request.mode, knowledge_base=request.knowledge_base
        )

    async def documents(
        self,
        who: Principal,
        *,
        knowledge_base: str = "default",
        source_prefix: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DocumentList:
        await self._note("documents", who=who, knowledge_base=knowledge_base, source_prefix=source_prefix, limit=limit, cursor=cursor)
        return DocumentList(documents=[a_document()], total=1)

    async def document(
        self, who: Principal, document_id: UUID, *, knowledge_base: str = "default", offset: int = 0, max_tokens: int = 4000
    ) -> DocumentText:
        await self._note("document", who=who, document_id=document_id, knowledge_base=knowledge_base, offset=offset, max_tokens=max_tokens)
        return DocumentText(**a_document().model_dump(), text="Text", offset=offset)

    async def delete_document(self, who: Principal, document_id: UUID, *, knowledge_base: str = "default") -> JobView:
        await self._note("delete_document", who=who, document_id=document_id, knowledge_base=knowledge_base)
        return a_job(kind="delete")

    async def knowledge_bases(self, who: Principal) -> KnowledgeBaseList:
        await self._note("knowledge_bases", who=who)
        return KnowledgeBaseList(knowledge_bases=[a_knowledge_base()])

    async def create_knowledge_base(self, who: Principal, request: KnowledgeBaseCreate) -> KnowledgeBaseView:
        await self._note("create_knowledge_base", who=who, request=request)
        return a_knowledge_base(request.name)

    async def delete_knowledge_base(self, who: Principal, name: str) -> JobView:
        await self._note("delete_knowledge_base", who=who, name=name)
        return a_job(kind="delete", knowledge_base=name)

    async def knowledge_base_hash(self, who: Principal, name: str) -> KnowledgeBaseHash:
        await self._note("knowledge_base_hash", who=who, name=name)
        return KnowledgeBaseHash(knowledge_base=name, hash="ab" * 32, documents=1, chunks=2, entities=3, relations=4)

    async def collections(self, who: Principal, name: str) -> CollectionList:
        await self._note("collections", who=who, name=name)
        return a_collection_list(name)

    async def check_knowledge_base(self, who: Principal, name: str) -> KnowledgeBaseCheck:
        await self._note("check_knowledge_base", who=who, name=name)
        check = CollectionCheck(model="m", dim=8, state="live", expected=2, present=2, missing=0, other=1, incomplete_documents=0)
        return KnowledgeBaseCheck(knowledge_base=name, ok=True, collections=[check])

    async def rebuild_knowledge_base(self, who: Principal, name: str, request: RebuildRequest) -> JobView:
        await self._note("rebuild_knowledge_base", who=who, name=name, request=request)
        return a_job(kind="rebuild", knowledge_base=name)

    async def reindex_knowledge_base(self, who: Principal, name: str, request: ReindexRequest) -> JobView:
        await self._note("reindex_knowledge_base", who=who, name=name, request=request)
        return a_job(kind="reindex", knowledge_base=name)

    async def flip_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        await self._note("flip_knowledge_base", who=who, name=name)
        return a_collection_list(name)

    async def rollback_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        await self._note("rollback_knowledge_base", who=who, name=name)
        return a_collection_list(name)

    async def discard_collections(self, who: Principal, name: str) -> CollectionList:
        await self._note("discard_collections", who=who, name=name)
        return a_collection_list(name)

    async def ingest_job_progress(self, who: Principal, request: IngestJobUids) -> IngestJobList:
        await self._note("ingest_job_progress", who=who, request=request)
        return IngestJobList(jobs=[an_ingest_job(uid) for uid in request.uids])

    async def cancel_ingest_jobs(self, who: Principal, request: IngestJobUids) -> IngestJobsCancelled:
        await self._note("cancel_ingest_jobs", who=who, request=request)
        return IngestJobsCancelled(cancelled=len(request.uids))

    async def active_ingest_jobs(
        self, who: Principal, *, after: str | None = None, limit: int = 1000, namespaces: Sequence[str] | None = None
    ) -> ActiveIngestJobs:
        await self._note("active_ingest_jobs", who=who, after=after, limit=limit, namespaces=namespaces)
        return ActiveIngestJobs(uids=[str(JOB)], next=str(JOB))

    async def ensure_namespace_base(self, who: Principal, namespace: str, name: str, request: NamespaceBase) -> NamespaceBaseView:
        await self._note("ensure_namespace_base", who=who, namespace=namespace, name=name, request=request)
        return a_namespace_base(namespace, name)

    async def create_upload(self, who: Principal, request: UploadCreate) -> UploadView:
        await self._note("create_upload", who=who, request=request)
        url = f"/uploads/{UPLOAD}/content?token=t"
        return UploadView(upload_id=UPLOAD, filename=request.filename, stored=False, upload_url=url, expires_at=NOW)

    async def put_upload(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> UploadView:
        await self._note("put_upload", upload_id=upload_id, token=token)
        await self._read(content)
        return UploadView(upload_id=upload_id, filename="f", size=self.received, stored=True, expires_at=NOW)

    async def upload(self, who: Principal, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> UploadView:
        await self._note("upload", who=who, filename=filename, mime=mime)
        await self._read(content)
        return UploadView(upload_id=UPLOAD, filename=filename, size=self.received, stored=True, expires_at=NOW)

    async def _read(self, content: AsyncIterator[bytes]) -> None:
        async for chunk in content:
            self.chunks.append(len(chunk))
            self.received += len(chunk)
            self.digest.update(chunk)
            self.progress.set()

    async def keys(self, who: Principal) -> KeyList:
        await self._note("keys", who=who)
        return KeyList(keys=[a_key()])

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        await self._note("create_key", who=who, request=request)
        return KeyCreated(**a_key().model_dump(), key="shk_k3v9x0ab_secret")

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        await self._note("revoke_key", who=who, key_id=key_id)
        return a_key(key_id)

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        await self._note("rotate_key", who=who, key_id=key_id, request=request)
        return KeyCreated(**a_key().model_dump(), key="shk_k3v9x0ab_secret")

    async def health(self) -> Health:
        await self._note("health")
        status: Any = self.health_status
        return Health(status=status, version="0", dependencies=[DependencyHealth(name="postgres", status=status)])
