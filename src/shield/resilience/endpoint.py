"""An HTTP endpoint that takes JSON and answers JSON, with a key that may be rotated while we run.

Both model providers (`knowledge/llm_providers`, `knowledge/embedding/providers`) are this and a dialect. The key goes to the
configured address only: redirects are not followed and proxy variables are not read. The key's file is looked at before each
request, and read again when the endpoint refuses the key (401, 403); if it holds another one by then, the request is sent once more,
so a rotated secret is neither an error nor a reason to restart. An answer is read up to `max_bytes`, decompressed.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from shield.errors import DependencyMisconfigured, DependencyUnavailable
from shield.resilience.dependency import answer_error, retry_after_seconds

if TYPE_CHECKING:
    import httpx

_MAX_ERROR = 64 * 1024
"""How much of an error's body is read to tell what it means."""


class RotatingKey:
    """A key given by value, by file, or not at all; a file wins, and a new content of it counts from the next request on."""

    def __init__(self, value: SecretStr | None, file: Path | None) -> None:
        self._value = value.get_secret_value() if value else None
        self._file = file
        self._seen: tuple[int, int, int] | None = None

    def current(self) -> str | None:
        """The key now. A file that is being replaced, or is gone, leaves the last one in force."""
        if self._file is None:
            return self._value
        try:
            state = self._file.stat()
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
            if seen != self._seen:
                self._value = self._file.read_text(encoding="utf-8").strip() or self._value
                self._seen = seen
        except (OSError, UnicodeDecodeError):
            pass  # the endpoint's answer to the old key tells what matters
        return self._value

    def renewed(self, refused: str | None) -> bool:
        """Read the file whatever its date says; whether there is another key than the refused one."""
        self._seen = None
        return self.current() not in {None, refused}


class JsonEndpoint:
    """One endpoint; safe to use from several tasks at once."""

    def __init__(self, service: str, what: str, base_url: str, key: RotatingKey, *, connections: int | None = None) -> None:
        """Make it; nothing is called yet.

        Args:
            service: its name among the dependencies.
            what: how an error's sentence calls it.
            base_url: its address, with or without the path's first segment (`/v1`, `/api`).
            key: sent as a bearer token where there is one.
            connections: most connections at once; the client's own limit where None.
        """
        self._service, self._what = service, what
        self._base = base_url.rstrip("/")
        self._key = key
        self._connections = connections
        self._client: httpx.AsyncClient | None = None

    async def post(self, path: str, body: dict[str, Any], *, max_bytes: int, timeout: float | None) -> Any:  # noqa: ASYNC109  covers a second try with a new key too
        """The answer to `body`.

        Raises:
            DependencyUnavailable: no answer within `timeout` seconds, one that is too long, or no JSON.
            ShieldError: what an unsuccessful answer means; see `answer_error`.
        """
        import httpx

        try:
            async with asyncio.timeout(timeout):
                content = await self._post(path, body, max_bytes)
        except TimeoutError as error:
            raise DependencyUnavailable(f"The {self._what} did not answer in time.", service=self._service, late=True) from error
        except httpx.InvalidURL as error:
            raise DependencyMisconfigured(f"The address of the {self._what} is not valid.", service=self._service) from error
        except httpx.HTTPError as error:
            raise DependencyUnavailable(f"The {self._what} does not answer.", service=self._service) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.unreadable() from error

    def unreadable(self) -> DependencyUnavailable:
        """The error of an answer that is not what the dialect promises."""
        return DependencyUnavailable(f"The {self._what} answers in an unknown form.", service=self._service)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _post(self, path: str, body: dict[str, Any], max_bytes: int) -> bytes:
        key = self._key.current()
        status, headers, content = await self._exchange(path, body, key, max_bytes)
        if status in {401, 403} and self._key.renewed(key):
            status, headers, content = await self._exchange(path, body, self._key.current(), max_bytes)
        if status != 200:
            asked = headers.get("retry-after") or headers.get("llm_provider-retry-after")  # what LiteLLM hands on from behind it
            raise answer_error(self._service, status, content, retry_after_seconds(asked))
        return content

    async def _exchange(self, path: str, body: dict[str, Any], key: str | None, max_bytes: int) -> tuple[int, httpx.Headers, bytes]:
        headers = {"content-type": "application/json"}
        if key:
            if not (key.isascii() and key.isprintable()):
                raise DependencyMisconfigured(f"The key of the {self._what} holds characters that no key has.", service=self._service)
            headers["authorization"] = f"Bearer {key}"
        content_sent = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        async with self._http().stream("POST", self._url(path), content=content_sent, headers=headers) as answer:
            limit = max_bytes if answer.status_code == 200 else _MAX_ERROR
            content = bytearray()
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > limit:
                    if answer.status_code != 200:
                        break
                    raise DependencyUnavailable(f"The {self._what} does not stop answering.", service=self._service)
            return answer.status_code, answer.headers, bytes(content[:limit])

    def _url(self, path: str) -> str:
        first = path.split("/", 2)[1]
        return self._base.removesuffix(f"/{first}") + path

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            limits = httpx.Limits(max_connections=self._connections) if self._connections else httpx.Limits()
            self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113  `post` holds the limit
        return self._client
