"""The orchestrator, as the operator sees it: rows of IngestJobs in batches, knowledge bases of a namespace.

One HTTP session, a time limit for each call, the API key read from its file for each call (so that a renewed Secret needs no restart). An
orchestrator that does not answer, or answers with a failure of its own, is `OrchestratorUnavailable`: wait. An answer that says no is
`OrchestratorRefused` with the error's stable code. Neither ever decides what a Kubernetes object's condition is by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

BATCH = 1000
"""Most uids in one call."""
NAMESPACES = 100
"""Most namespaces in one call."""
PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds to leave it alone if it does not say for how long, and at most."""


class OrchestratorError(Exception):
    """A call to the orchestrator did not work."""

    cause: ClassVar[str] = "orchestrator"


class OrchestratorUnavailable(OrchestratorError):
    """It is away, busy or broken; the same call may work later."""

    def __init__(self, message: str, code: str = "", retry_after: float = PAUSE) -> None:
        super().__init__(f"{message} ({code})" if code else message)
        self.code = code
        """What it said is amiss, such as `dependency.misconfigured`; empty if it said nothing."""
        self.retry_after = retry_after
        """Seconds to leave it alone, at least: many who ask at once are what it may be suffering from."""


class OrchestratorRefused(OrchestratorError):
    """It said no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code or status}: {message}")
        self.status = status
        self.code = code
        """Its stable error code, such as `kb.unknown`; empty if it gave none."""
        self.message = message


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


_Model = TypeVar("_Model", bound=_Answer)


class RowProgress(_Answer):
    """How far a row is."""

    pages_found: int = 0
    pages_fetched: int = 0
    documents: int = 0
    chunks: int = 0
    failed: int = 0
    bytes: int = 0
    percentage: float | None = None


class Row(_Answer):
    """The orchestrator's row of an IngestJob."""

    uid: str
    job_id: str
    status: str
    outcome: str | None = None
    error_code: str | None = None
    stage: str | None = None
    progress: RowProgress = Field(default_factory=RowProgress)
    attempts: int = 0
    updated_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """It will never change again."""
        return self.status in {"completed", "failed", "cancelled"}


class _Rows(_Answer):
    jobs: list[Row]


class _Active(_Answer):
    uids: list[str]
    next: str | None = None
    namespaces: list[str] | None = None


class Orchestrator:
    """A client; an async context manager."""

    def __init__(self, url: str, *, api_key_file: Path | None = None, limit: float = 5.0) -> None:
        """Nothing is connected yet.

        Args:
            url: where it is, such as `http://shield-api:8001`.
            api_key_file: the key's file; None: calls carry no credential.
            limit: longest call, in seconds.
        """
        self._url = url.rstrip("/")
        self._key = api_key_file
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._limit))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def progress(self, uids: Sequence[str]) -> dict[str, Row]:
        """The rows of these IngestJobs, by uid; those without a row are left out."""
        found: dict[str, Row] = {}
        for start in range(0, len(uids), BATCH):
            answer = await self.call("POST", "/ingest-jobs/progress", {"uids": list(uids[start : start + BATCH])})
            found |= {row.uid: row for row in _parsed(_Rows, answer).jobs}
        return found

    async def cancel(self, uids: Sequence[str]) -> None:
        """End these rows, where they have not ended."""
        for start in range(0, len(uids), BATCH):
            await self.call("POST", "/ingest-jobs/cancel", {"uids": list(uids[start : start + BATCH])})

    async def active(self, namespaces: Sequence[str] = ()) -> AsyncIterator[list[str]]:
        """The uids of all rows of IngestJobs that have not ended, page by page; of these namespaces, or of all."""
        for start in range(0, len(namespaces) or 1, NAMESPACES):
            asked = list(namespaces[start : start + NAMESPACES])
            only = "".join(f"&namespaces={quote(namespace, safe='')}" for namespace in asked)
            after: str | None = ""
            while after is not None:
                page = _parsed(_Active, await self.call("GET", f"/ingest-jobs/active?after={quote(after, safe='')}&limit={BATCH}{only}"))
                if page.namespaces != (asked or None):
                    raise OrchestratorUnavailable("it told the rows of all namespaces, not of those that it was asked for; it is too old")
                yield page.uids
                after = page.next

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call; the answer's JSON, None if it has no content.

        Raises:
            OrchestratorUnavailable: no answer, or 408, 429, 5xx.
            OrchestratorRefused: any other answer that is no success.
        """
        if self._session is None:
            raise RuntimeError("the client is not open")
        headers = await asyncio.to_thread(self._credential, self._key) if self._key is not None else {}
        try:
            async with self._session.request(method, f"{self._url}{path}", json=body, headers=headers, allow_redirects=False) as answer:
                content = await answer.json(content_type=None) if answer.status != 204 else None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise OrchestratorUnavailable(f"{method} {path.partition('?')[0]}: {str(error) or 'no answer in time'}") from error
        said = content if isinstance(content, dict) else {}
        if answer.status in {408, 429} or answer.status >= 500:
            told = answer.headers.get("Retry-After", "")
            pause = min(float(told), LONGEST_PAUSE) if told.isdecimal() else PAUSE
            raise OrchestratorUnavailable(f"{method} {path.partition('?')[0]}: status {answer.status}", str(said.get("code") or ""), pause)
        if not 200 <= answer.status < 300:
            raise OrchestratorRefused(answer.status, str(said.get("code") or ""), str(said.get("detail") or said.get("message") or ""))
        return content

    @staticmethod
    def _credential(file: Path) -> dict[str, str]:
        try:
            return {"Authorization": f"Bearer {file.read_text(encoding='ascii').strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise OrchestratorUnavailable(f"the API key's file cannot be read: {error}") from error


def _parsed(model: type[_Model], answer: Any) -> _Model:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise OrchestratorUnavailable(f"an answer that is no {model.__name__.strip('_')}: {error.error_count()} mistakes") from error
