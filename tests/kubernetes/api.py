"""A client of the API server for proofs and benchmarks: plain JSON, an administrator's certificate, watches that never give up.

It shares nothing with the operator's own client, so that a mistake in one is seen by the other.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp

Obj = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
_ROOTS = {
    "ingestjobs": "/apis/shield.hx-citadel.io/v1alpha1",
    "ingestschedules": "/apis/shield.hx-citadel.io/v1alpha1",
    "knowledgebases": "/apis/shield.hx-citadel.io/v1alpha1",
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}
_LIMIT = 30.0
"""Seconds for one answer, on a machine that has much else to do."""


def path(plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """Where something is served."""
    parts = (_ROOTS.get(plural, "/api/v1"), *(("namespaces", namespace) if namespace else ()), plural, name, subresource)
    return "/".join(part for part in parts if part)


def trusted(directory: Path) -> ssl.SSLContext:
    """To trust the API server whose keys lie in `directory`."""
    return ssl.create_default_context(cafile=str(directory / "pki" / "ca.crt"))


def administrator(directory: Path) -> ssl.SSLContext:
    """To be its administrator."""
    context = trusted(directory)
    context.load_cert_chain(directory / "pki" / "admin.crt", directory / "pki" / "admin.key")
    return context


class ApiError(AssertionError):
    """The API server said no."""

    def __init__(self, status: int, said: Any, what: str) -> None:
        reason = said.get("reason", "") if isinstance(said, dict) else ""
        message = said.get("message", "") if isinstance(said, dict) else str(said)
        super().__init__(f"{what}: {status} {reason} {message}")
        self.status = status
        self.reason = reason


class Api:
    """An async context manager."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        """Nothing is connected yet."""
        self._url = url
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=2**20)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._open.close()

    async def call(self, method: str, where: str, body: Any = None, *, content_type: str = "application/json") -> Obj:
        """One request; its answer.

        Raises:
            ApiError: it is no success.
        """
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else {}
        limit = aiohttp.ClientTimeout(total=_LIMIT)
        async with self._open.request(method, self._url + where, data=data, headers=headers, timeout=limit) as answer:
            said = await answer.json(content_type=None)
        if answer.status >= 400:
            raise ApiError(answer.status, said, f"{method} {where}")
        return dict(said)

    async def get(self, plural: str, namespace: str, name: str) -> Obj:
        """One object."""
        return await self.call("GET", path(plural, namespace, name))

    async def find(self, plural: str, namespace: str, name: str) -> Obj | None:
        """One object; None if there is none."""
        try:
            return await self.get(plural, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, plural: str, namespace: str = "", **query: str) -> list[Obj]:
        """All objects."""
        return list((await self.call("GET", _with(path(plural, namespace), query)))["items"])

    async def create(self, plural: str, namespace: str, body: Obj) -> Obj:
        """A new object."""
        return await self.call("POST", path(plural, namespace), body)

    async def patch(self, plural: str, namespace: str, name: str, body: Obj, subresource: str = "", *, kind: str = MERGE) -> Obj:
        """Merge into an object."""
        return await self.call("PATCH", path(plural, namespace, name, subresource), body, content_type=kind)

    async def delete(self, plural: str, namespace: str, name: str, **options: Any) -> None:
        """Delete an object; one that is gone is success."""
        try:
            await self.call("DELETE", path(plural, namespace, name), options or None)
        except ApiError as error:
            if error.status != 404:
                raise

    async def watch(self, plural: str, namespace: str = "", **query: str) -> AsyncIterator[tuple[str, Obj]]:
        """All objects as they are, as ADDED, and whatever becomes of them, for ever. After a gap everything is told again."""
        where = path(plural, namespace)
        while True:
            try:
                listed = await self.call("GET", _with(where, query))
                version = listed["metadata"]["resourceVersion"]
                for obj in listed["items"]:
                    yield "ADDED", obj
                follow = _with(where, {**query, "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"})
                async with self._open.get(self._url + follow, timeout=aiohttp.ClientTimeout(total=None, sock_connect=_LIMIT)) as stream:
                    async for line in stream.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError, ApiError):
                await asyncio.sleep(0.2)

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open")
        return self._session


def _with(where: str, query: Mapping[str, str]) -> str:
    return f"{where}?{urlencode(query)}" if query else where
