"""The port all surfaces call. `LocalShield` answers in this process; `RemoteShield` asks an orchestrator over REST.

Every method acts for a principal, sees only what is that principal's, and raises `ShieldError` leaves only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol
from uuid import UUID

from shield.auth import Principal
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


class Shield(Protocol):
    """The use cases."""

    async def ingest(
        self,
        who: Principal,
        request: IngestRequest,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        local_caller: bool = False,
    ) -> JobView:
        """Accept a job; when this returns, it survives any crash. `local_caller` may name files by path."""

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        """A job; with `wait` seconds (up to 45) answer when it ends or the time is up."""

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
        """The principal's jobs, newest first; `code` is that of their error."""

    def events(self, who: Principal, job_id: UUID, last_event_id: str | None = None) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """(id, event, data): a `snapshot` first, then `progress` as it comes, `end` at the end."""

    async def cancel(self, who: Principal, job_id: UUID) -> JobView:
        """Ask a job to stop; takes effect within a heartbeat."""

    async def retry(self, who: Principal, job_id: UUID) -> JobView:
        """A new job that starts from what the old one finished."""

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        """Passages for a query."""

    async def store(self, who: Principal, request: StoreRequest) -> StoreResult:
        """Store a note and index it."""

    async def query(self, who: Principal, request: QueryRequest) -> Answer:
        """An answer with citations."""

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

    async def document(
        self, who: Principal, document_id: UUID, *, knowledge_base: str = "default", offset: int = 0, max_tokens: int = 4000
    ) -> DocumentText:
        """A document's text from `offset` (characters) on."""

    async def delete_document(self, who: Principal, document_id: UUID, *, knowledge_base: str = "default") -> JobView:
        """Accept the deletion of a document, with proof, as a job."""

    async def knowledge_bases(self, who: Principal) -> KnowledgeBaseList:
        """All that the principal may see."""

    async def create_knowledge_base(self, who: Principal, request: KnowledgeBaseCreate) -> KnowledgeBaseView:
        """Make one."""

    async def delete_knowledge_base(self, who: Principal, name: str) -> JobView:
        """Accept the deletion of a base with all its documents, as a job."""

    async def knowledge_base_hash(self, who: Principal, name: str) -> KnowledgeBaseHash:
        """Its fingerprint."""

    async def collections(self, who: Principal, name: str) -> CollectionList:
        """The vector collections of a base, the live one first."""

    async def check_knowledge_base(self, who: Principal, name: str) -> KnowledgeBaseCheck:
        """The index of a base against PostgreSQL."""

    async def rebuild_knowledge_base(self, who: Principal, name: str, request: RebuildRequest) -> JobView:
        """Accept the restoring of a base's vectors from its texts, as a job."""

    async def reindex_knowledge_base(self, who: Principal, name: str, request: ReindexRequest) -> JobView:
        """Accept the move of a base to another embedding model, as a job."""

    async def flip_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        """Answer from the collection that is ready."""

    async def rollback_knowledge_base(self, who: Principal, name: str) -> CollectionList:
        """Answer from the collection before the last flip again."""

    async def discard_collections(self, who: Principal, name: str) -> CollectionList:
        """Give up all collections but the live one."""

    async def ingest_job_progress(self, who: Principal, request: IngestJobUids) -> IngestJobList:
        """Where the rows of these IngestJobs stand; those without one are left out."""

    async def cancel_ingest_jobs(self, who: Principal, request: IngestJobUids) -> IngestJobsCancelled:
        """Cancel the rows of these IngestJobs that have not ended; doing it again changes nothing."""

    async def active_ingest_jobs(
        self, who: Principal, *, after: str | None = None, limit: int = 1000, namespaces: Sequence[str] | None = None
    ) -> ActiveIngestJobs:
        """IngestJobs whose rows have not ended, in order, those after `after`; of these namespaces, or of all."""

    async def ensure_namespace_base(self, who: Principal, namespace: str, name: str, request: NamespaceBase) -> NamespaceBaseView:
        """The knowledge base of a namespace, made if it is missing."""

    async def create_upload(self, who: Principal, request: UploadCreate) -> UploadView:
        """Announce a file; the answer holds a one-time URL."""

    async def put_upload(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> UploadView:
        """Store the file behind a one-time URL."""

    async def upload(self, who: Principal, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> UploadView:
        """Store a file in one go."""

    async def keys(self, who: Principal) -> KeyList:
        """All API keys, without their secrets."""

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        """Make an API key; the answer is the only place where its secret ever stands."""

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        """End a key at once."""

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        """A successor with the same rights; the old key ends after a grace period."""

    async def health(self) -> Health:
        """What works."""
