"""A stand-in for the `Shield` port that records what the tools ask and answers with fixed models: for the plumbing only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from shield.auth import Principal
from shield.service.models import (
    Answer,
    Citation,
    CollectionList,
    DocumentList,
    DocumentText,
    DocumentView,
    FindRequest,
    FindResult,
    Health,
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
    OutcomeView,
    Passage,
    ProgressView,
    QueryRequest,
    RebuildRequest,
    ReindexRequest,
    StoreRequest,
    StoreResult,
    UploadCreate,
    UploadView,
)

T = TypeVar("T")
JOB = UUID("7d9f1c1e-0000-4000-8000-000000000001")
DOCUMENT = UUID("7d9f1c1e-0000-4000-8000-000000000002")
THEN = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
PASSAGE = Passage(text="Pumps fail.", source="https://example.org/", document_id=DOCUMENT, chunk=0, start=0, end=11, score=0.5, page=3)
DOCUMENT_VIEW: dict[str, Any] = {
    "document_id": DOCUMENT,
    "source": "https://example.org/",
    "kind": "web",
    "title": "Pumps",
    "mime": "text/html",
    "revision": 2,
    "chunks": 1,
    "bytes": 11,
    "updated_at": THEN,
    "knowledge_base": "default",
}


def a_job() -> JobView:
    return JobView(
        job_id=JOB,
        status="pending",
        status_url=f"/jobs/{JOB}",
        poll_after_seconds=2,
        knowledge_base="default",
        kind="crawl",
        stage="queued",
        priority="normal",
        progress=ProgressView(pages_found=1),
        created_at=THEN,
        outcomes=[OutcomeView(number=1, source="https://example.org/", status="stored", document_id=DOCUMENT)],
        outcomes_total=1,
    )


class RecordingShield:
    """Implements `Shield`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.calls: list[tuple[str, Principal, dict[str, Any]]] = []
        self.failure: BaseException | None = None
        self.hold: asyncio.Event | None = None
        self.held = asyncio.Event()

    async def _answer(self, method: str, who: Principal, answer: T, **arguments: Any) -> T:
        self.calls.append((method, who, arguments))
        if self.hold:
            self.held.set()
            await self.hold.wait()
        if self.failure:
            raise self.failure
        return answer

    async def ingest(
        self,
        who: Principal,
        request: IngestRequest,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        local_caller: bool = False,
    ) -> JobView:
        return await self._answer("ingest", who, a_job(), request=request, traceparent=traceparent, local_caller=local_caller)

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        return await self._answer("job", who, a_job(), job_id=job_id, wait=wait, outcomes_after=outcomes_after)

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
        answer = JobList(jobs=[a_job()], next_cursor="more")
        return await self._answer("jobs", who, answer, status=status, knowledge_base=knowledge_base, limit=limit, cursor=cursor)

    async def events(
        self, who: Principal, job_id: UUID, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        yield "1-1", "snapshot", {}

    async def cancel(self, who: Principal, job_id: UUID) -> JobView:
        return await self._answer("cancel", who, a_job(), job_id=job_id)

    async def retry(self, who: Principal, job_id: UUID) -> JobView:
        return await self._answer("retry", who, a_job(), job_id=job_id)

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        answer = FindResult(found=True, results=[PASSAGE], next_cursor="more", knowledge_base=request.knowledge_base)
        return await self._answer("find", who, answer, request=request)

    async def store(self, who: Principal, request: StoreRequest) -> StoreResult:
        answer = StoreResult(document_id=DOCUMENT, source="text:1", chunks=1, changed=True, knowledge_base=request.knowledge_base)
        return await self._answer("store", who, answer, request=request)

    async def query(self, who: Principal, request: QueryRequest) -> Answer:
        citation = Citation(number=1, quote="Pumps fail.", source="https://example.org/", document_id=DOCUMENT, chunk=0, start=0, end=11)
        answer = Answer(
            found=True,
            kind="extractive",
            answer="Pumps fail. [1]",
            citations=[citation],
            passages=[PASSAGE],
            mode=request.mode,
            knowledge_base=request.knowledge_base,
        )
        return await self._answer("query", who, answer, request=request)

    async def documents(
        self,
        who: Principal,
        *,
        knowledge_base: str = "default",
        source_prefix: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DocumentList:
        answer = DocumentList(documents=[DocumentView(**DOCUMENT_VIEW)], total=1)
        arguments = {"knowledge_base": knowledge_base, "source_prefix": source_prefix, "limit": limit, "cursor": cursor}
        return await self._answer("documents", who, answer, **arguments)

    async def document(
        self, who: Principal, document_id: UUID, *, knowledge_base: str = "default", offset: int = 0, max_tokens: int = 4000
    ) -> DocumentText:
        answer = DocumentText(**DOCUMENT_VIEW, text="Pumps fail.")
        arguments = {"document_id": document_id, "knowledge_base": knowledge_base, "offset": offset, "max_tokens": max_tokens}
        return await self._answer("document", who, answer, **arguments)

    async def delete_document(self, who: Principal, document_id: UUID, *, knowledge_base: str = "default") -> JobView:
        return await self._answer("delete_document", who, a_job(), document_id=document_id, knowledge_base=knowledge_base)

    async def knowledge_bases(self, who: Principal) -> KnowledgeBaseList:
        return await self._answer("knowledge_bases", who, KnowledgeBaseList(knowledge_bases=[_a_base()]))

    async def create_knowledge_base(self, who: Principal, request: KnowledgeBaseCreate) -> KnowledgeBaseView:
        return await self._answer("create_knowledge_base", who, _a_base(), request=request)

    async def delete_knowledge_base(self, who: Principal, name: str) -> JobView:
        return await self._answer("delete_knowledge_base", who, a_job(), name=name)

    async def knowledge_base_hash(self, who: Principal, name: str) -> KnowledgeBaseHash:
        answer = KnowledgeBaseHash(knowledge_base=name, hash="0", documents=0, chunks=0, entities=0, relations=0)
        return await self._answer("knowledge_base_hash", who, answer, name=name)

    async def collections(self, who: Principal, name: str) -> CollectionList:
        raise AssertionError("no tool manages collections")

    async def check_knowledge_base(self, who: Principal, name: str) -> KnowledgeBaseCheck:
        raise AssertionError("no tool manages collections")

    async def rebuild_knowledge_base(self, who: Principal, name: str, request: RebuildRequest) -> JobView:
        raise AssertionError("no tool manages collections")

    async def reindex_knowledge_base(self, who: Principal, name: str, request: ReindexRequest) -> JobView:
        raise AssertionError("no tool manages collections")

    async def flip_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        raise AssertionError("no tool manages collections")

    async def rollback_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        raise AssertionError("no tool manages collections")

    async def discard_collections(self, who: Principal, name: str) -> CollectionList:
        raise AssertionError("no tool manages collections")

    async def create_upload(self, who: Principal, request: UploadCreate) -> UploadView:
        return await self._answer("create_upload", who, _an_upload(request.filename), request=request)

    async def put_upload(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> UploadView:
        return _an_upload("a.pdf")

    async def upload(self, who: Principal, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> UploadView:
        return await self._answer("upload", who, _an_upload(filename), filename=filename, mime=mime)

    async def keys(self, who: Principal) -> KeyList:
        raise AssertionError("no tool manages keys")

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        raise AssertionError("no tool manages keys")

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        raise AssertionError("no tool manages keys")

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        raise AssertionError("no tool manages keys")

    async def health(self) -> Health:
        return Health(status="ok", version="0", dependencies=[])


def _a_base() -> KnowledgeBaseView:
    return KnowledgeBaseView(
        id=DOCUMENT,
        name="default",
        description="",
        graph=True,
        embedding_model="all-minilm-l6-v2",
        embedding_dim=384,
        documents=1,
        chunks=1,
        created_at=THEN,
    )


def _an_upload(filename: str) -> UploadView:
    return UploadView(upload_id=JOB, filename=filename, stored=False, upload_url="http://127.0.0.1/u", expires_at=THEN + timedelta(days=1))
