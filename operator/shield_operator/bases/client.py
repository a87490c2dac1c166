"""The orchestrator's REST API as the controller of KnowledgeBases uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from shield_operator.bases.port import NOT_FOUND, Answer, BaseView, KbJob, Space
from shield_operator.orchestrator import Orchestrator, OrchestratorRefused, OrchestratorUnavailable

_JOB_NOT_FOUND = "job.not_found"
_PAGE = 100

_Model = TypeVar("_Model", bound=Answer)


class _Jobs(Answer):
    jobs: list[KbJob]


class BaseClient:
    """The adapter of the port `Bases`."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._call = orchestrator.call

    async def ensure(self, namespace: str, name: str, *, description: str, graph: bool, embedding: Space | None) -> BaseView:
        body: dict[str, Any] = {"description": description, "graph": graph}
        if embedding is not None:
            body |= {"embedding_model": embedding.model, "embedding_dim": embedding.dim}
        return _parsed(BaseView, await self._call("PUT", f"/namespaces/{_path(namespace)}/knowledge-bases/{_path(name)}", body))

    async def exists(self, name: str) -> bool:
        try:
            await self._call("GET", f"/knowledge-bases/{_path(name)}/collections")
        except OrchestratorRefused as error:
            if error.code == NOT_FOUND:
                return False
            raise
        return True

    async def reindex(self, name: str, embedding: Space) -> KbJob:
        body = {"model": embedding.model, "dim": embedding.dim}
        return _parsed(KbJob, await self._call("POST", f"/knowledge-bases/{_path(name)}/reindex", body))

    async def rollback(self, name: str) -> None:
        await self._call("POST", f"/knowledge-bases/{_path(name)}/rollback")

    async def delete(self, name: str) -> KbJob:
        return _parsed(KbJob, await self._call("DELETE", f"/knowledge-bases/{_path(name)}"))

    async def retry(self, job_id: str) -> KbJob:
        return _parsed(KbJob, await self._call("POST", f"/jobs/{_path(job_id)}/retry"))

    async def job(self, job_id: str) -> KbJob | None:
        try:
            return _parsed(KbJob, await self._call("GET", f"/jobs/{_path(job_id)}"))
        except OrchestratorRefused as error:
            if error.code == _JOB_NOT_FOUND:
                return None
            raise

    async def deletions(self, name: str) -> Sequence[KbJob]:
        answer = await self._call("GET", f"/jobs?knowledge_base={quote(name, safe='')}&limit={_PAGE}")
        return [job for job in _parsed(_Jobs, answer).jobs if job.kind == "delete"]


def _path(part: str) -> str:
    return quote(part, safe="")


def _parsed(model: type[_Model], answer: Any) -> _Model:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise OrchestratorUnavailable(f"an answer that is no {model.__name__.strip('_')}: {error.error_count()} mistakes") from error
