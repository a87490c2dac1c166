"""The `Shield` port over REST: what the CLI, stdio and other processes use when an orchestrator runs somewhere.

Every method is one request. A problem document becomes the leaf error it was on the server (code, message, details, retry_after), so callers
cannot tell a remote port from a local one by its errors. No connection, silence, and answers that are not Shield's are
`ServerUnreachable`. Every wait has a limit; uploads and events are streams in both directions. Answers are read leniently: a newer
server may say more than this client knows.

The principal is not sent: a server believes credentials, never names.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import httpx
from pydantic import BaseModel, ValidationError

from shield.auth import Principal
from shield.auth.hosts import parse_authority
from shield.auth.local import is_loopback
from shield.errors import ConfigInvalid, KnowledgeBaseNameInvalid, ServerUnreachable, ShieldError, from_code, leaf_errors
from shield.service.models import (
    Answer,
    DocumentList,
    DocumentText,
    FindRequest,
    FindResult,
    Health,
    IngestRequest,
    JobList,
    JobView,
    KnowledgeBaseCreate,
    KnowledgeBaseHash,
    KnowledgeBaseList,
    KnowledgeBaseView,
    QueryRequest,
    StoreRequest,
    StoreResult,
    UploadCreate,
    UploadView,
)
from shield.settings import ClientSettings

M = TypeVar("M", bound=BaseModel)
_NAME = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
_NOT_SHIELD = "The address does not answer like a Shield server."


class RemoteShield:
    """A client of one orchestrator; use it as an async context manager, or call `aclose`.

    Args:
        base_url: address of the server, http or https.
        client: an httpx client to use (and leave open), for instance over `httpx.ASGITransport`; by default one of its own.
        settings: how long to wait.

    Raises:
        ConfigInvalid: the address is not an http or https URL.
    """

    def __init__(self, base_url: str, client: httpx.AsyncClient | None = None, settings: ClientSettings | None = None) -> None:
        settings = settings or ClientSettings()
        self._base = _base(base_url)
        self._silence = settings.timeout.total_seconds()
        self._connect = settings.connect.total_seconds()
        self._owned = client is None
        # an owner on this machine is never behind the proxy of the environment
        self._client = client or httpx.AsyncClient(trust_env=not is_loopback(self._base.host))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the client was handed in."""
        if self._owned:
            await self._client.aclose()

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
        return await self._post("lightrag/ingest-async", request, JobView, headers={k: v for k, v in headers.items() if v is not None})

    async def job(self, who: Principal, job_id: UUID, *, wait: float = 0, outcomes_after: int = 0, outcomes_limit: int = 20) -> JobView:
        """A job; waits up to `wait` seconds for its end."""
        params = {"wait": wait, "outcomes_after": outcomes_after, "outcomes_limit": outcomes_limit}
        return await self._get(f"jobs/{job_id}", JobView, params, patience=wait)

    async def jobs(
        self, who: Principal, *, status: str | None = None, knowledge_base: str | None = None, limit: int = 20, cursor: str | None = None
    ) -> JobList:
        """Jobs, newest first."""
        return await self._get("jobs", JobList, {"status": status, "knowledge_base": knowledge_base, "limit": limit, "cursor": cursor})

    async def events(
        self, who: Principal, job_id: UUID, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """(id, event, data) as they come; the server's keep-alive comments bound the silence."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        async with self._streamed("GET", f"jobs/{job_id}/events", headers=headers) as response, aclosing(_events(response)) as events:
            async for event_id, event, data in events:
                if event == "error":
                    raise _error(data, None)
                yield event_id, event, data

    async def cancel(self, who: Principal, job_id: UUID) -> JobView:
        """Ask a job to stop."""
        return await self._post(f"jobs/{job_id}/cancel", None, JobView)

    async def retry(self, who: Principal, job_id: UUID) -> JobView:
        """A new job from an old one."""
        return await self._post(f"jobs/{job_id}/retry", None, JobView)

    # -- search -------------------------------------------------------------------------------------------------------

    async def find(self, who: Principal, request: FindRequest) -> FindResult:
        """Passages for a query."""
        return await self._post("find", request, FindResult)

    async def store(self, who: Principal, request: StoreRequest) -> StoreResult:
        """Store a note."""
        return await self._post("notes", request, StoreResult)

    async def query(self, who: Principal, request: QueryRequest) -> Answer:
        """An answer with citations."""
        return await self._post("lightrag/query", request, Answer)

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
        return await self._get("documents", DocumentList, params)

    async def document(
        self, who: Principal, document_id: UUID, *, knowledge_base: str = "default", offset: int = 0, max_tokens: int = 4000
    ) -> DocumentText:
        """A document's text."""
        params = {"knowledge_base": knowledge_base, "offset": offset, "max_tokens": max_tokens}
        return await self._get(f"documents/{document_id}", DocumentText, params)

    async def delete_document(self, who: Principal, document_id: UUID, *, knowledge_base: str = "default") -> JobView:
        """Delete a document, as a job."""
        return await self._call("DELETE", f"documents/{document_id}", JobView, params={"knowledge_base": knowledge_base})

    async def knowledge_bases(self, who: Principal) -> KnowledgeBaseList:
        """All knowledge bases."""
        return await self._get("knowledge-bases", KnowledgeBaseList)

    async def create_knowledge_base(self, who: Principal, request: KnowledgeBaseCreate) -> KnowledgeBaseView:
        """Make one."""
        return await self._post("knowledge-bases", request, KnowledgeBaseView)

    async def delete_knowledge_base(self, who: Principal, name: str) -> JobView:
        """Delete one, as a job."""
        return await self._call("DELETE", f"knowledge-bases/{_segment(name)}", JobView)

    async def knowledge_base_hash(self, who: Principal, name: str) -> KnowledgeBaseHash:
        """Its fingerprint."""
        return await self._get(f"knowledge-bases/{_segment(name)}/hash", KnowledgeBaseHash)

    # -- uploads and health -------------------------------------------------------------------------------------------

    async def create_upload(self, who: Principal, request: UploadCreate) -> UploadView:
        """Announce a file."""
        return await self._post("uploads/announce", request, UploadView)

    async def put_upload(self, upload_id: UUID, token: str, content: AsyncIterator[bytes]) -> UploadView:
        """Store an announced file."""
        headers = {"Content-Type": "application/octet-stream"}
        return await self._call(
            "PUT", f"uploads/{upload_id}/content", UploadView, params={"token": token}, headers=headers, content=content
        )

    async def upload(self, who: Principal, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> UploadView:
        """Store a file in one go."""
        boundary = uuid4().hex
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return await self._call("POST", "uploads", UploadView, headers=headers, content=_form(boundary, filename, mime, content))

    async def health(self) -> Health:
        """What works; `down` is an answer, not an error."""
        async with self._streamed("GET", "readyz", accept=(200, 503)) as response:
            return await self._model(response, Health)

    # -- plumbing -----------------------------------------------------------------------------------------------------

    async def _get(self, path: str, model: type[M], params: Mapping[str, Any] | None = None, patience: float = 0) -> M:
        return await self._call("GET", path, model, params=params, patience=patience)

    async def _post(self, path: str, body: BaseModel | None, model: type[M], headers: Mapping[str, str] | None = None) -> M:
        content = body.model_dump_json().encode() if body is not None else None
        return await self._call("POST", path, model, headers={"Content-Type": "application/json", **(headers or {})}, content=content)

    async def _call(
        self,
        method: str,
        path: str,
        model: type[M],
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        patience: float = 0,
    ) -> M:
        async with self._streamed(method, path, params=params, headers=headers, content=content, patience=patience) as response:
            return await self._model(response, model)

    @asynccontextmanager
    async def _streamed(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        patience: float = 0,
        accept: tuple[int, ...] = (),
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(self._silence + patience, connect=self._connect)
        given = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            async with self._client.stream(
                method, self._base.join(path), params=given, headers=headers, content=content, timeout=timeout
            ) as response:
                if not (response.is_success or response.status_code in accept):
                    raise await _failure(response)
                yield response
        except httpx.TimeoutException as error:
            raise ServerUnreachable("The Shield server did not answer in time.") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ServerUnreachable from error

    @staticmethod
    async def _model(response: httpx.Response, model: type[M]) -> M:
        body = await response.aread()
        try:
            return model.model_validate_json(body, extra="ignore")
        except ValidationError as error:
            if response.status_code >= 400:
                raise await _failure(response) from None
            raise ServerUnreachable(_NOT_SHIELD) from error


def _base(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url if url.endswith("/") else f"{url}/")
    except httpx.InvalidURL as error:
        raise ConfigInvalid("The server's address is not a URL.") from error
    if parsed.scheme not in ("http", "https") or parsed.userinfo or parse_authority(parsed.netloc.decode("ascii")) is None:
        raise ConfigInvalid("The server's address must begin with http:// or https:// and name a host, without credentials.")
    return parsed


def _segment(name: str) -> str:
    """A knowledge base's name as a path segment; what could be read as another route never leaves."""
    if not _NAME.fullmatch(name):
        raise KnowledgeBaseNameInvalid
    return name


async def _failure(response: httpx.Response) -> ShieldError:
    body = await response.aread()
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "code" not in fields:
        return ServerUnreachable(f"{_NOT_SHIELD} It said {response.status_code}.")
    return _error(fields, response.headers.get("retry-after"))


def _error(fields: Mapping[str, Any], retry_header: str | None) -> ShieldError:
    """The leaf that a problem document (or an `error` event) was on the server."""
    code = str(fields["code"])
    message = fields.get("detail") or fields.get("message")
    error = from_code(code, str(message) if message else None)
    details = fields.get("details")
    error.details = dict(details) if isinstance(details, dict) else {}
    if code not in leaf_errors():
        error.details["code"] = code  # a newer server's error: keep its name
    after = fields.get("retry_after", retry_header)
    if isinstance(after, int | float) or (isinstance(after, str) and after.isdecimal()):
        error.retry_after = float(after)
    return error


async def _events(response: httpx.Response) -> AsyncGenerator[tuple[str, str, dict[str, Any]], None]:
    """The events of a stream, as the HTML standard reads them; the server sends ASCII, so any line splitter agrees with it."""
    event_id, event, data = "", "message", list[str]()
    async for line in response.aiter_lines():
        if not line:
            if data:
                try:
                    yield event_id, event, json.loads("\n".join(data))
                except ValueError as error:
                    raise ServerUnreachable(_NOT_SHIELD) from error
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)


async def _form(boundary: str, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    name = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    kind = f"Content-Type: {mime}\r\n" if mime and mime.isascii() and mime.isprintable() else ""
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n{kind}\r\n'.encode()
    async for chunk in content:
        yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()
