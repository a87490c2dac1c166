"""Intake: from a request to a committed job.

Content that a caller sends along (text, base64, a file below the document root) is stored as an upload first, so a job's
row stays small and a retry finds its content again. If the job turns out to exist already (same idempotency key, identical
live request), the fresh upload is erased. The request's hash covers the content's hash, never the upload's random id.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from shield.auth import Principal, Scope
from shield.errors import (
    BytesQuotaExceeded,
    DocumentRootRefused,
    InlineContentInvalid,
    InvalidRequest,
    KnowledgeBaseProtected,
    PageNeedsBrowser,
    WebhooksOff,
)
from shield.jobs.model import DOCUMENTS, FLEET, WEBHOOK, JobKind, JobRequest, Priority
from shield.knowledge.bases import DEFAULT
from shield.knowledge.model import KnowledgeBase
from shield.service.audit import record
from shield.service.jobs import JobCases
from shield.service.models import CrawlSpec, DocumentSpec, DocumentsSpec, IngestRequest, JobView, UploadCreate, UploadView
from shield.service.quota import check_bytes
from shield.sources.browser.find import NEED as BROWSER
from shield.sources.sitemap import AUTO
from shield.sources.uploads import Upload
from shield.sources.urls import Scope as CrawlScope
from shield.sources.urls import canonical

_CHOICES = ("url", "upload_id", "content_base64", "path", "text")


class IntakeCases(JobCases):
    """Accepting work and files."""

    async def ingest(
        self,
        who: Principal,
        request: IngestRequest,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        local_caller: bool = False,
        runner: str = FLEET,
    ) -> JobView:
        """Accept a crawl or a document; see `Shield.ingest`. `runner`: whose job it is, when it is not the fleet's."""
        who.require(Scope.CRAWL if isinstance(request.spec, CrawlSpec) else Scope.KB_WRITE)
        base = await self._base(who, request.knowledge_base)
        needs: tuple[str, ...] = ()
        if isinstance(request.spec, CrawlSpec):
            if request.spec.remove_vanished:
                who.require(Scope.KB_WRITE)  # it deletes
            kind, size, upload = JobKind.CRAWL, 0, None
            render = await self._render(request.spec.render)
            needs = (BROWSER,) if render == "browser" else ()
            fingerprint: dict[str, Any] = _crawl(request.spec)
            spec = {**fingerprint, "render": render}
        elif isinstance(request.spec, DocumentsSpec) and request.spec.upload_id is None:
            kind, size, upload, needs = JobKind.INGEST, 0, None, (DOCUMENTS,)
            spec = fingerprint = self._documents(request.spec, runner)
        else:
            kind = JobKind.INGEST
            one = request.spec if isinstance(request.spec, DocumentSpec) else _upload_of(request.spec)
            spec, fingerprint, size, upload = await self._document(who, one, local_caller=local_caller)
        if request.webhook is not None:
            if self.parts.settings.webhook.secret is None:
                raise WebhooksOff
            told = {WEBHOOK: canonical(request.webhook.url)}
            spec, fingerprint = {**spec, **told}, {**fingerprint, **told}
        budget = request.budget.tokens if request.budget else None
        if budget is not None:
            fingerprint = {**fingerprint, "budget": budget}  # another budget is another request
        return await self._accept(
            JobRequest(
                kind=kind,
                principal=who.name,
                knowledge_base_id=base.id,
                knowledge_base=base.name,
                spec=spec,
                request_hash=request_hash(kind, base.id, request.priority, fingerprint),
                payload_bytes=size,
                idempotency_key=idempotency_key,
                runner=runner,
                needs=needs,
                priority=Priority(request.priority),
                traceparent=traceparent,
                upload_id=upload,
                budget_tokens=budget,
            )
        )

    async def _render(self, asked: str | None) -> str:
        """How a crawl's pages are read; decided now, so that each run of the job reads them alike."""
        if asked == "http":
            return asked
        offered = BROWSER in await self.parts.offers()
        if asked == "browser" and not offered:
            raise PageNeedsBrowser  # now, not after a day in the queue
        return asked or ("auto" if offered else "http")

    async def delete_document(self, who: Principal, document_id: UUID, *, knowledge_base: str = "default") -> JobView:
        """Accept a deletion; an unknown document is refused now, not later."""
        who.require(Scope.KB_WRITE)
        base = await self._base(who, knowledge_base)
        document = await self.parts.documents.find(base, document_id)
        return await self._accept_deletion(who, base, {"document_id": str(document.id), "source": document.source})

    async def delete_knowledge_base(self, who: Principal, name: str) -> JobView:
        """Accept the deletion of a whole base."""
        who.require(Scope.ADMIN)
        base = await self._base(who, name)
        if base.name == DEFAULT:
            raise KnowledgeBaseProtected
        return await self._accept_deletion(who, base, {"knowledge_base": base.name})

    async def create_upload(self, who: Principal, request: UploadCreate) -> UploadView:
        """Announce a file; the URL takes one PUT."""
        who.require(Scope.KB_WRITE)
        await self._check_bytes(who.name, arrived=False)
        upload, token = await self.parts.uploads.create(who.name, request.filename, request.mime)
        return _upload_view(upload, url=f"{self.base_url}/uploads/{upload.id}/content?token={token}")

    async def put_upload(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> UploadView:
        """Store the file behind a one-time URL."""
        return await self._arrived(await self.parts.uploads.put(upload_id, token, content))

    async def upload(self, who: Principal, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> UploadView:
        """Store a file in one go."""
        who.require(Scope.KB_WRITE)
        await self._check_bytes(who.name, arrived=False)
        return await self._arrived(await self.parts.uploads.store(who.name, filename, mime, content))

    async def _arrived(self, upload: Upload) -> UploadView:
        """A stored upload, or nothing of it if it went beyond what its owner may send."""
        try:
            await self._check_bytes(upload.principal, arrived=True)
        except BytesQuotaExceeded:
            await self.parts.uploads.erase(upload.id)
            raise
        return _upload_view(upload)

    async def _check_bytes(self, principal: str, *, arrived: bool) -> None:
        await check_bytes(self.parts.engine, principal, self.parts.settings.jobs, arrived=arrived)

    async def _accept(self, request: JobRequest) -> JobView:
        try:
            job = await self.parts.jobs.accept(request)
        except Exception:  # whatever refused the job, the content stored for it alone goes; the refusal itself passes on
            await self._drop(request)
            raise
        if request.upload_id is not None and job.spec.get("upload_id") != str(request.upload_id):
            await self._drop(request)
        self.parts.notify(None)
        return self._view(job)

    async def _drop(self, request: JobRequest) -> None:
        """Erase content that was stored for this request only; a caller's own upload stays his."""
        if request.upload_id is not None and request.spec.get("made_upload"):
            await self.parts.uploads.erase(request.upload_id)

    async def _accept_deletion(self, who: Principal, base: KnowledgeBase, spec: dict[str, Any]) -> JobView:
        job = await self._accept(
            JobRequest(
                kind=JobKind.DELETE,
                principal=who.name,
                knowledge_base_id=base.id,
                knowledge_base=base.name,
                spec=spec,
                request_hash=request_hash(JobKind.DELETE, base.id, "high", spec),
                priority=Priority.HIGH,
            )
        )
        subject = f"{base.name}/{spec['document_id']}" if "document_id" in spec else base.name
        await record(self.parts.engine, who.name, "delete", subject, {"job_id": str(job.job_id)})
        return job

    async def _document(
        self, who: Principal, spec: DocumentSpec, *, local_caller: bool
    ) -> tuple[dict[str, Any], dict[str, Any], int, UUID | None]:
        """The stored spec, what its hash is made of, its size, and its upload."""
        given = [name for name in _CHOICES if getattr(spec, name) is not None]
        if len(given) != 1:
            raise InvalidRequest(f"Give exactly one of {', '.join(_CHOICES)}; this has {len(given)}.", fields=list(_CHOICES))
        common: dict[str, Any] = {"source": spec.source, "title": spec.title, "metadata": spec.metadata}
        if spec.url is not None:
            stored = {**common, "url": canonical(spec.url)}
            return stored, stored, 0, None
        if spec.upload_id is not None:
            upload, made, default = await self.parts.uploads.get(who.name, spec.upload_id), False, None
        else:
            content, name, default = await self._content(spec, local_caller=local_caller)
            upload, made = await self.parts.uploads.store(who.name, name, None, _once(content)), True
        name = spec.filename or upload.name
        source = spec.source or default or f"upload:{name}#{(upload.sha256 or '')[:12]}"
        stored = {**common, "source": source, "filename": name, "upload_id": str(upload.id), "made_upload": made, "sha256": upload.sha256}
        hashed = {key: value for key, value in stored.items() if key not in {"upload_id", "made_upload"}}
        return stored, hashed, upload.size or 0, upload.id

    def _documents(self, spec: DocumentsSpec, runner: str) -> dict[str, Any]:
        """The stored spec of many documents."""
        _only_one(spec)
        common: dict[str, Any] = {"type": spec.type, "metadata": spec.metadata}
        if spec.urls is not None:
            return {**common, "urls": list(dict.fromkeys(canonical(url) for url in spec.urls))}
        root = self.parts.settings.document_root
        if runner == FLEET:  # its workers share no files with whoever calls
            raise DocumentRootRefused("Only `shield run-job` reads a directory.")
        if root is None or spec.path is None:
            raise DocumentRootRefused
        from shield.sources.paths import parts_below

        parts_below(root, spec.path)
        return {**common, "path": spec.path, "source": spec.source, "include": spec.include, "exclude": spec.exclude}

    async def _content(self, spec: DocumentSpec, *, local_caller: bool) -> tuple[bytes, str, str | None]:
        """Content sent along: its bytes, name and default source."""
        if spec.text is not None:
            content = spec.text.encode()
            return content, spec.filename or "note.md", f"text:{hashlib.sha256(content).hexdigest()}"
        if spec.content_base64 is not None:
            if not spec.filename:
                raise InvalidRequest("filename: needed with content_base64, for the type.", fields=["filename"])
            try:
                content = base64.b64decode(spec.content_base64, validate=True)
            except (binascii.Error, ValueError) as error:
                raise InlineContentInvalid from error
            if len(content) > self.parts.settings.file.max_inline_bytes:
                raise InlineContentInvalid
            return content, spec.filename, None
        root = self.parts.settings.document_root
        if root is None or not local_caller or spec.path is None:
            raise DocumentRootRefused
        from shield.sources.paths import read_below

        content, name = await asyncio.to_thread(read_below, root, spec.path, self.parts.settings.file.max_bytes)
        return content, spec.filename or name, f"file:{PurePosixPath(spec.path)}"


def _only_one(spec: DocumentsSpec) -> None:
    choices = ("urls", "path", "upload_id")
    given = [name for name in choices if getattr(spec, name) is not None]
    if len(given) != 1:
        raise InvalidRequest(f"Give exactly one of {', '.join(choices)}; this has {len(given)}.", fields=list(choices))
    if spec.path is None and (spec.include or spec.exclude):
        raise InvalidRequest("include, exclude: they choose among the files of a path.", fields=["include", "exclude"])
    if spec.urls is not None and spec.source is not None:
        raise InvalidRequest("source: a document from an address is named by the address.", fields=["source"])


def _upload_of(spec: DocumentsSpec) -> DocumentSpec:
    """One upload is one document."""
    _only_one(spec)
    return DocumentSpec(upload_id=spec.upload_id, source=spec.source, metadata=spec.metadata)


def _crawl(spec: CrawlSpec) -> dict[str, Any]:
    """The spec as it is stored.

    Raises:
        UrlInvalid: the start page or a sitemap has no valid address.
        InvalidRequest: a domain is none, or a sitemap lies out of the allowed domains.
    """
    scope = CrawlScope.of(spec.url, spec.allowed_domains)
    sitemaps = [name if name == AUTO else canonical(name) for name in spec.sitemaps]
    if any(name != AUTO and name not in scope for name in sitemaps):
        raise InvalidRequest("sitemaps: each must lie within the allowed domains.", fields=["sitemaps"])
    return {**spec.model_dump(exclude={"type"}), "url": canonical(spec.url), "sitemaps": sitemaps}


def request_hash(kind: JobKind, base: UUID, priority: str, spec: dict[str, Any]) -> str:
    """What makes two requests the same."""
    text = json.dumps([kind, str(base), priority, spec], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _upload_view(upload: Upload, url: str | None = None) -> UploadView:
    return UploadView(
        upload_id=upload.id,
        filename=upload.name,
        size=upload.size,
        sha256=upload.sha256,
        stored=upload.stored,
        upload_url=url,
        expires_at=upload.expires_at,
    )
