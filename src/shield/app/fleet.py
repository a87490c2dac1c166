"""The processes of a fleet: orchestrator, MCP server, worker; each stands alone on PostgreSQL, Redis and a Qdrant server.

None of them migrates the database (`shield db upgrade` does), none keeps anything on its disk that matters, and each may be killed
at any point. They find each other through the database and Redis only; the MCP server alone is told where an orchestrator is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import structlog

from shield.app.process import Process, address, bind
from shield.auth.authenticator import Authenticator
from shield.auth.hop import HopTokens
from shield.errors import ConfigInvalid
from shield.settings import Settings
from shield.telemetry.metrics import Metrics
from shield.telemetry.series import Role

if TYPE_CHECKING:
    from shield.worker.loop import Worker

log = structlog.get_logger(__name__)

API_PORT = 8001
"""The orchestrator's port where none is set: it may share a machine with an MCP server."""


@dataclass(frozen=True)
class Addresses:
    """Where a process answers; a worker has metrics, liveness and readiness only."""

    metrics_url: str
    url: str | None = None


def server_dsn(settings: Settings) -> str:
    """The database of a fleet.

    Raises:
        ConfigInvalid: this is not server mode.
    """
    if settings.mode != "server" or settings.postgres.dsn is None:
        raise ConfigInvalid("This command needs SHIELD_MODE=server; on one machine, `shield up` does everything in one process.")
    return settings.postgres.dsn.get_secret_value()


class FleetProcess(Process):
    """What the three have in common."""

    role: ClassVar[Role]
    addresses: Addresses

    def _announce(self, metrics_url: str, url: str | None = None) -> None:
        self.addresses = Addresses(metrics_url, url)
        log.info("process.ready", role=str(self.role), url=url, metrics=metrics_url)


class ApiProcess(FleetProcess):
    """The orchestrator: REST, intake, queries, events, relay, housekeeping."""

    role = Role.API

    def __init__(self, settings: Settings) -> None:
        server_dsn(settings)  # known at once, not when the rest is being started
        super().__init__(settings)

    async def _start(self) -> None:
        dsn = server_dsn(self._settings)
        port = self._settings.port if "port" in self._settings.model_fields_set else API_PORT
        listener = bind(self._settings.host, port)
        self._stack.callback(listener.close)
        settings = self._settings.model_copy(update={"port": listener.getsockname()[1]})
        metrics = Metrics(role=self.role)
        metrics_url = self._expose(metrics)
        from shield.api.app import create_app
        from shield.api.dependencies import Introspection
        from shield.app.assembly import Wake, answering, connect_core
        from shield.app.chores import dispatcher, housekeeping, warm_up
        from shield.app.observing import JobMetrics, watch
        from shield.app.probes import services
        from shield.jobs.bridge import EventReceiver
        from shield.jobs.relay import Relay
        from shield.jobs.streams import RedisPublisher
        from shield.service.local import LocalShield

        core = await connect_core(settings, dsn, self._stack, migrate=False, metrics=metrics)
        publisher, swept = RedisPublisher(settings.redis), JobMetrics(metrics).swept
        relay = Relay(core.engine, publisher, settings.jobs, published=metrics.hints, swept=swept)
        wake = Wake([relay.notify])
        answers = await answering(core, self._stack, wake)
        shield = LocalShield(answers.parts)
        url = address(settings.host, settings.port)
        shield.base_url = settings.public_url or url
        hop = HopTokens.of(settings)
        app = create_app(
            shield,
            settings,
            metrics,
            principal_of=Authenticator.of(settings, shield.api_keys),
            introspection=Introspection(shield.api_keys, hop) if hop else None,
        )
        self._serve(app, listener)
        self._run("warm-up", warm_up(answers.parts, self._stop))
        self._run("relay", relay.run(self._stop))
        self._run("events", EventReceiver(settings.redis, core.events, settled=relay.notify).run(self._stop))
        self._run("housekeeping", housekeeping(answers, self._stop))
        self._run("webhooks", dispatcher(core).run(self._stop))
        self._run("watch", watch(services(core.engine, settings), metrics, settings, self._stop))
        await self._serving()
        self._announce(metrics_url, url)


class McpProcess(FleetProcess):
    """The MCP server: the tools, answered by an orchestrator."""

    role = Role.MCP

    def __init__(self, settings: Settings) -> None:
        if settings.orchestrator.url is None:
            raise ConfigInvalid("`shield mcp` over HTTP needs SHIELD_ORCHESTRATOR_URL, or --stdio to serve one client on this machine.")
        super().__init__(settings)

    async def _start(self) -> None:
        listener = bind(self._settings.host, self._settings.port)
        self._stack.callback(listener.close)
        settings = self._settings.model_copy(update={"port": listener.getsockname()[1]})
        from typing import cast

        from shield.api.app import create_app
        from shield.mcp import caller, create_mcp, http_app, warm_up
        from shield.resilience import Breakers
        from shield.service.guarded import GuardedShield
        from shield.service.introspection import Introspection
        from shield.service.port import Shield
        from shield.service.remote import RemoteShield

        metrics = Metrics(role=self.role)
        metrics_url = self._expose(metrics)
        breakers = Breakers(settings.breaker, observed=metrics.dependency_call)
        metrics.circuits(breakers)
        orchestrator, hop = str(settings.orchestrator.url), HopTokens.of(settings)
        if hop is None and settings.auth.mode != "none":
            raise ConfigInvalid("`shield mcp` needs SHIELD_AUTH_HOP_SECRET, the same as the orchestrator's, to say for whom it calls.")
        remote = RemoteShield(orchestrator, settings=settings.client, credentials=hop.mint if hop else None, delegated=hop is not None)
        self._stack.push_async_callback(remote.aclose)
        keys = None
        if hop is not None and settings.auth.mode == "api-key":
            keys = await self._stack.enter_async_context(Introspection(orchestrator, hop, settings, breakers=breakers))
        shield = cast("Shield", GuardedShield(remote, breakers))
        mcp = http_app(create_mcp(shield, metrics, settings, principal=caller))
        self._serve(create_app(shield, settings, metrics, mcp, principal_of=Authenticator.of(settings, keys), rest=False), listener)
        await self._serving()
        await warm_up(mcp)
        self._announce(metrics_url, address(settings.host, settings.port))


class WorkerProcess(FleetProcess):
    """A worker: jobs and graph steps."""

    role = Role.WORKER
    _worker: Worker | None = None
    _waits = "postgres"

    def __init__(self, settings: Settings) -> None:
        server_dsn(settings)  # known at once, not when the rest is being started
        super().__init__(settings)

    async def _start(self) -> None:
        dsn = server_dsn(self._settings)
        self._stop_limit += self._settings.jobs.drain.total_seconds() * 2
        metrics = Metrics(role=self.role)
        metrics_url = self._expose(metrics)
        from shield.app.assembly import connect_core, working
        from shield.app.observing import watch
        from shield.app.probes import services
        from shield.app.scratch import private_scratch

        core = await connect_core(self._settings, dsn, self._stack, migrate=False, metrics=metrics)
        self._waits = "registration"
        scratch = await asyncio.to_thread(private_scratch, self._settings.data_dir / "cache" / "convert")
        crew = working(core, self._stack, scratch=scratch)
        for name, work in crew.work(self._stop).items():
            self._run(name, work)
        self._run("watch", watch(services(core.engine, self._settings), metrics, self._settings, self._stop))
        self._worker = crew.worker
        self._announce(metrics_url)

    def _waits_for(self) -> Sequence[str]:
        """The database, then the worker's row in it, which counts for a lease."""
        if self._stop.is_set() or (self._worker is not None and self._worker.registered):
            return super()._waits_for()
        return (self._waits,)
