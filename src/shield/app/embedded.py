"""Everything in one process: what `shield up` runs, and what a command or a stdio client becomes when nobody else is there.

Starts bottom up (database, parts, servers), announces its address once it serves, and stops top down within three seconds: no
new request or job is begun, a running job is handed back to its row and goes on at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from typing import TYPE_CHECKING

import structlog

from shield import __version__
from shield.app import samples
from shield.app.owner import Ownership, ServerInfo
from shield.app.process import Process, address, bind
from shield.auth import LOCAL
from shield.auth.authenticator import Authenticator
from shield.auth.hop import HopTokens, Service
from shield.auth.local import is_loopback
from shield.database.embedded import EmbeddedPostgres
from shield.errors import DatabaseUnavailable
from shield.service.local import LocalShield
from shield.settings import Settings

if TYPE_CHECKING:
    from shield.app.assembly import Answering

log = structlog.get_logger(__name__)

_WATCH = 1.0  # seconds between two looks at the database's process


class EmbeddedApp(Process):
    """The running process; use it as an async context manager."""

    shield: LocalShield
    info: ServerInfo

    def __init__(self, settings: Settings, ownership: Ownership) -> None:
        super().__init__(settings)
        self._ownership = ownership
        self._hop: HopTokens | None = None

    def token(self) -> str | None:
        """A credential of the local user, good for a minute; None where none is needed."""
        return self._hop.mint(LOCAL, Service.LOCAL) if self._hop else None

    async def _start(self) -> None:
        self._stack.callback(self._ownership.close)
        listener = bind(self._settings.host, self._settings.port)
        self._stack.callback(listener.close)
        settings = self._settings.model_copy(update={"port": listener.getsockname()[1]})
        postgres = EmbeddedPostgres(settings.data_dir)
        starting = asyncio.create_task(asyncio.to_thread(postgres.start))
        self._stack.push_async_callback(asyncio.to_thread, postgres.stop)
        await asyncio.sleep(0)
        from shield.app.assembly import Wake, answering, connect_core, working  # about two seconds, while PostgreSQL starts beside
        from shield.app.chores import dispatcher, housekeeping, warm_up
        from shield.app.observing import watch
        from shield.app.probes import services

        await starting
        core = await connect_core(settings, postgres.dsn, self._stack, migrate=True)
        crew = working(core, self._stack)
        answers = await answering(core, self._stack, Wake([crew.worker.notify]), offers=crew.offered)
        self._run("warm-up", warm_up(answers.parts, self._stop))
        await asyncio.sleep(0)
        self.shield = LocalShield(answers.parts)
        self.info = self._surfaces(settings, answers, listener)
        self.shield.base_url = settings.public_url or self.info.url
        await core.jobs.abandon_leases()  # the lock makes us the only worker: what an earlier life held goes on at once
        for name, work in crew.work(self._stop).items():
            self._run(name, work)
        self._run("housekeeping", housekeeping(answers, self._stop))
        self._run("webhooks", dispatcher(core).run(self._stop))
        self._run("watch", watch(services(core.engine, settings), core.metrics, settings, self._stop))
        self._run("postgres", _keep_alive(postgres, self._stop))
        await self._serving()
        self._ownership.announce(self.info)
        log.info("server.ready", url=self.info.url, metrics=self.info.metrics_url)

    def _surfaces(self, settings: Settings, answers: Answering, listener: socket.socket) -> ServerInfo:
        from shield.api.app import create_app
        from shield.mcp import caller, create_mcp, http_app

        metrics = answers.core.metrics
        local = is_loopback(settings.host) and settings.public_url is None
        self._hop = self._share_secret(settings)
        authenticator = Authenticator.of(settings, self.shield.api_keys, self._hop)
        mcp = create_mcp(self.shield, metrics, settings, principal=caller, local_caller=local)
        folder = samples.directory()
        site = folder / "site" if folder else None
        self._serve(create_app(self.shield, settings, metrics, http_app(mcp), principal_of=authenticator, samples=site), listener)
        return ServerInfo(
            url=address(settings.host, settings.port), metrics_url=self._expose(metrics), pid=os.getpid(), version=__version__
        )

    def _share_secret(self, settings: Settings) -> HopTokens | None:
        """Where credentials are asked for, let whoever can read the data directory in as its user, by a secret that lives as long as we."""
        if settings.auth.mode == "none":
            return HopTokens.of(settings)
        given = settings.auth.hop_secret
        secret = given.get_secret_value() if given else secrets.token_urlsafe(48)
        hop = HopTokens(secret, settings.auth.clock_skew)
        self._ownership.share(secret)
        return hop


async def _keep_alive(postgres: EmbeddedPostgres, stop: asyncio.Event) -> None:
    """Start the database again when it dies; meanwhile callers get 503 and jobs wait."""
    while not stop.is_set():
        if not await asyncio.to_thread(postgres.alive):
            log.error("postgres.died")
            try:
                await asyncio.to_thread(postgres.revive)
                log.warning("postgres.back")
            except DatabaseUnavailable:
                log.error("postgres.does_not_start")  # noqa: TRY400  the reason is in its own log; the next round tries again
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _WATCH)
