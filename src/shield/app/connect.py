"""The way to a server: the one at SHIELD_URL, or else the data directory's owner if there is one, otherwise ourselves.

A server far away is shown SHIELD_API_KEY. An owner that asks for credentials has left a secret in its directory, with which those who
can read it act as its user.

A client that outlives its server (a stdio client, a command that follows a job) looks again when the server is gone, and
may become the owner then. Requests are repeated after such a change; all of them are safe to repeat: an identical live
job is shared, a note with the same text is the same note.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from shield.app.owner import Ownership, own_or_find, shared_secret
from shield.database.embedded import prepare
from shield.errors import ConfigInvalid, ServerUnreachable
from shield.service.port import Shield
from shield.settings import Settings

if TYPE_CHECKING:
    from shield.service.transport import Credentials

_PATIENCE = 10.0  # seconds to look for another server after one was lost
_PAUSE = 0.1  # seconds between two looks
_STREAMS = frozenset({"events", "put_upload", "upload"})
"""Calls that hand over or return a stream, which cannot be begun again."""


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Shield]:
    """A `Shield` for as long as the block lasts; whatever was started for it stops afterwards.

    Raises:
        ConfigInvalid: these are the settings of a fleet, and SHIELD_URL does not say where it is.
    """
    if settings.url is not None:
        from shield.service.remote import RemoteShield

        key = settings.api.key.get_secret_value() if settings.api.key else None
        async with RemoteShield(settings.url, settings=settings.client, credentials=(lambda _who: key) if key else None) as remote:
            yield remote
        return
    if settings.mode == "server":
        raise ConfigInvalid("SHIELD_MODE=server: set SHIELD_URL to the orchestrator's address, and SHIELD_API_KEY if it asks for one.")
    async with _Shared(settings) as shared:
        await shared.current()
        yield cast("Shield", shared)


def _as_owner(settings: Settings) -> Credentials | None:
    """What commands of the data directory's user show to its owner; None where it asks for nothing."""
    secret = shared_secret(settings.data_dir)
    if secret is None:
        return None
    from shield.auth.hop import HopTokens, Service

    hop = HopTokens(secret, settings.auth.clock_skew)
    return lambda who: hop.mint(who, Service.LOCAL)


class _Shared:
    """Passes every call to the current server, and finds or becomes another when it is gone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"port": 0, "metrics_port": 0})
        self._stack = AsyncExitStack()
        self._shield: Shield | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def current(self) -> Shield:
        """The server in use; looks for one, or becomes one, on first use and after a loss."""
        async with self._lock:
            if self._shield is None:
                self._shield = await self._find()
            return self._shield

    async def _find(self) -> Shield:
        await asyncio.to_thread(prepare, self._settings.data_dir)
        found = await asyncio.to_thread(own_or_find, self._settings.data_dir)
        if isinstance(found, Ownership):
            from shield.app.embedded import EmbeddedApp

            return (await self._stack.enter_async_context(EmbeddedApp(self._settings, found))).shield
        from shield.service.remote import RemoteShield

        remote = RemoteShield(found.url, credentials=_as_owner(self._settings), delegated=True)
        self._stack.push_async_callback(remote.aclose)
        return remote

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._stream(name) if name in _STREAMS else self._call(name)

    def _call(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            clock = asyncio.get_running_loop().time
            until = clock() + _PATIENCE
            while True:
                shield = await self.current()
                try:
                    return await getattr(shield, name)(*args, **options)
                except ServerUnreachable:
                    if clock() > until:
                        raise
                    async with self._lock:
                        if self._shield is shield:
                            self._shield = None
                await asyncio.sleep(_PAUSE)  # a killed owner holds its lock and its port a moment longer than its connections

        return call

    def _stream(self, name: str) -> Any:
        if self._shield is None:
            raise ServerUnreachable
        return getattr(self._shield, name)
