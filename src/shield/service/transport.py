"""HTTP between a `RemoteShield` and its server: one request a call, typed errors, bounded waits.

A problem document becomes the leaf error it was on the server (code, message, details, retry_after). No connection, silence, and
answers that are not Shield's are `ServerUnreachable`. Every wait has a limit; redirects are not followed, so a credential goes to the
configured server and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from shield.auth import Principal
from shield.auth.hosts import parse_authority
from shield.auth.local import is_loopback
from shield.errors import (
    ConfigInvalid,
    CredentialInvalid,
    DependencyMisconfigured,
    ServerUnreachable,
    ShieldError,
    Unauthenticated,
    from_code,
    leaf_errors,
)
from shield.settings import ClientSettings
from shield.telemetry.traces import traceparent

M = TypeVar("M", bound=BaseModel)
Credentials = Callable[[Principal], str]
"""What to show for a principal: a key, or a token made for it."""
_NOT_SHIELD = "The address does not answer like a Shield server."


class Transport:
    """Requests to one server; see `RemoteShield` for the arguments."""

    def __init__(
        self,
        base_url: str,
        client: httpx.AsyncClient | None,
        settings: ClientSettings,
        credentials: Credentials | None,
        *,
        delegated: bool,
    ) -> None:
        self._base = _base(base_url)
        self._silence = settings.timeout.total_seconds()
        self._connect = settings.connect.total_seconds()
        self._credentials = credentials
        self._delegated = delegated
        self._owned = client is None
        # an owner on this machine is never behind the proxy of the environment
        self._client = client or httpx.AsyncClient(trust_env=not is_loopback(self._base.host))

    async def aclose(self) -> None:
        """Close the connections, unless the client was handed in."""
        if self._owned:
            await self._client.aclose()

    def _authorization(self, who: Principal | None) -> dict[str, str]:
        """The credential for `who`; None needs none."""
        return {"Authorization": f"Bearer {self._credentials(who)}"} if who is not None and self._credentials is not None else {}

    def _blame(self, error: ShieldError) -> ShieldError:
        if self._delegated and isinstance(error, Unauthenticated | CredentialInvalid):
            return DependencyMisconfigured(
                "The orchestrator refuses this server's own token: SHIELD_AUTH_HOP_SECRET differs, or a clock is off."
            )
        return error

    async def get(
        self, who: Principal | None, path: str, model: type[M], params: Mapping[str, Any] | None = None, patience: float = 0
    ) -> M:
        """GET a model."""
        return await self.call(who, "GET", path, model, params=params, patience=patience)

    async def post(
        self, who: Principal | None, path: str, body: BaseModel | None, model: type[M], headers: Mapping[str, str] | None = None
    ) -> M:
        """POST a model as JSON."""
        content = body.model_dump_json().encode() if body is not None else None
        return await self.call(who, "POST", path, model, headers={"Content-Type": "application/json", **(headers or {})}, content=content)

    async def call(
        self,
        who: Principal | None,
        method: str,
        path: str,
        model: type[M],
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        patience: float = 0,
    ) -> M:
        """A request that is answered with a model; `patience`: seconds of silence more than usual."""
        async with self.streamed(who, method, path, params=params, headers=headers, content=content, patience=patience) as response:
            return await model_of(response, model)

    @asynccontextmanager
    async def streamed(
        self,
        who: Principal | None,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        patience: float = 0,
        accept: tuple[int, ...] = (),
    ) -> AsyncIterator[httpx.Response]:
        """A request whose answer is read by the caller; a refusal is raised, but for the statuses in `accept`."""
        timeout = httpx.Timeout(self._silence + patience, connect=self._connect)
        traced = {"traceparent": position} if (position := traceparent()) else {}
        headers = {**traced, **(headers or {}), **self._authorization(who)}
        given = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            async with self._client.stream(
                method, self._base.join(path), params=given, headers=headers, content=content, timeout=timeout
            ) as response:
                if not (response.is_success or response.status_code in accept):
                    raise self._blame(await _failure(response))
                yield response
        except httpx.TimeoutException as error:
            raise ServerUnreachable("The Shield server did not answer in time.") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ServerUnreachable from error


async def model_of(response: httpx.Response, model: type[M]) -> M:
    """The answer as a model, read leniently: a newer server may say more than this client knows."""
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


async def _failure(response: httpx.Response) -> ShieldError:
    body = await response.aread()
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "code" not in fields:
        return ServerUnreachable(f"{_NOT_SHIELD} It said {response.status_code}.")
    return error_of(fields, response.headers.get("retry-after"))


def error_of(fields: Mapping[str, Any], retry_header: str | None) -> ShieldError:
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


async def events_of(response: httpx.Response) -> AsyncGenerator[tuple[str, str, dict[str, Any]], None]:
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


async def form(boundary: str, filename: str, mime: str | None, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A file as a multipart form."""
    name = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    kind = f"Content-Type: {mime}\r\n" if mime and mime.isascii() and mime.isprintable() else ""
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n{kind}\r\n'.encode()
    async for chunk in content:
        yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()
