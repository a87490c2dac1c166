"""One replica of the operator: caches, election, controllers, health, from the start to the end.

Every replica fills its caches and is ready once they hold what a fresh list saw; then it stands for election. The leader adds every key once and
reconciles until it is told to stop, or loses its Lease, or a watch turns out to be stale, or a part fails: each of the last three ends the process
with a reason, and the standby takes over. Told to stop, it takes no more keys, lets running reconciles end, gives its Lease back, and is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from shield_operator.cluster import Fenced, Key, KubernetesCluster, NotLeading, configuration
from shield_operator.controller import Controller
from shield_operator.controllers import Parts, build, watches_of
from shield_operator.health import Lag, health_app, metrics_app, serving
from shield_operator.kopf_watches import watch
from shield_operator.lease import Leadership, Terms
from shield_operator.metrics import Metrics
from shield_operator.names import GROUP, VERSION
from shield_operator.orchestrator import Orchestrator
from shield_operator.queue import Result
from shield_operator.settings import Settings
from shield_operator.watching import Cache, Change, Resync

log = structlog.get_logger(__name__)


class Ended(Exception):
    """A part that should run for ever did not."""


@dataclass
class Ports:
    """Where the process answers, once it does."""

    health: int = 0
    metrics: int = 0


async def operate(
    settings: Settings, stop: asyncio.Event, *, signals: Callable[[], None] = lambda: None, ports: Ports | None = None
) -> None:
    """Run one replica until `stop` is set.

    Args:
        settings: the operator's.
        stop: set it to end in order.
        signals: called when the process's signal handlers have to be installed (again); kopf installs its own.
        ports: told the ports.

    Raises:
        ConfigurationError: it cannot run as it is set up.
        Exception: whatever ended it.
    """
    async with AsyncExitStack() as stack:
        replica = await Replica.connect(settings, stack, ports or Ports())
        await replica.run(stop, signals)


class Replica:
    """The parts of one process, connected."""

    def __init__(self, settings: Settings, config: Any, cluster: KubernetesCluster, orchestrator: Orchestrator | None) -> None:
        self._settings = settings
        self._config = config
        self._cluster = cluster
        self._reconciling = False
        self.metrics = Metrics()
        terms = Terms(settings.lease_duration, settings.renew_deadline, settings.retry_period)
        lease = Key(settings.own_namespace(), settings.lease_name)
        self.leadership = Leadership(cluster, lease, settings.identity, terms)
        self.caches = {one.kind.plural: Cache(one, self._tell) for one in watches_of()}
        fenced = Fenced(cluster, self.leadership.leading)
        self.controllers: Sequence[Controller] = build(Parts(settings, fenced, self.caches, orchestrator, self.metrics))
        self.lag = Lag(self.metrics, poll=settings.lag_poll, limit=settings.lag_limit)
        self.resync = Resync(
            cluster,
            list(self.caches.values()),
            self.metrics,
            namespaces=settings.namespaces,
            patience=settings.stale_after,
            poll=settings.sync_poll,
        )
        self.metrics.leader.labels(settings.lease_name).set_function(lambda: float(self.leadership.leading()))

    @classmethod
    async def connect(cls, settings: Settings, stack: AsyncExitStack, ports: Ports) -> Replica:
        """Open connections and ports; the stack closes them."""
        config = await configuration(settings.kubeconfig, connections=settings.connections)
        cluster = KubernetesCluster(config, timeout=settings.request_timeout, list_timeout=settings.list_timeout, page=settings.page)
        stack.push_async_callback(cluster.close)
        orchestrator = None
        if settings.orchestrator_url:
            client = Orchestrator(settings.orchestrator_url, api_key_file=settings.api_key_file, limit=settings.orchestrator_timeout)
            orchestrator = await stack.enter_async_context(client)
        replica = cls(settings, config, cluster, orchestrator)
        health = health_app(replica.lag, synced=lambda: replica.resync.synced, leading=replica.leadership.leading)
        ports.health = await stack.enter_async_context(serving(health, settings.host, settings.health_port))
        ports.metrics = await stack.enter_async_context(serving(metrics_app(replica.metrics), settings.host, settings.metrics_port))
        return replica

    async def run(self, stop: asyncio.Event, signals: Callable[[], None]) -> None:
        """Work until `stop` is set, or something ends it."""
        signals()
        work = asyncio.create_task(self._work(signals))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
                raise Ended("the operator's work ended by itself")
            await self._drain()
        finally:
            with suppress(TimeoutError):  # the next leader then waits until the Lease expires
                async with asyncio.timeout(self._settings.drain):
                    await self.leadership.release()
            for task in (work, stopped):
                task.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)

    async def _work(self, signals: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lag.measure())
            await self._definitions()
            tasks.create_task(self._watch(signals))
            await self.resync.first(self._settings.retry_period)
            log.info("operator.synced", objects={plural: len(cache) for plural, cache in self.caches.items()})
            tasks.create_task(self._resync())
            await self.leadership.acquire()
            tasks.create_task(self.leadership.keep())
            tasks.create_task(self._lead())

    async def _definitions(self) -> None:
        """Wait for our resource definitions: kopf looks for them only once."""
        wanted = {plural for plural, cache in self.caches.items() if cache.kind.group == GROUP}
        told = False
        while True:
            with suppress(Exception):  # the API server may be away at the start as at any other time
                missing = wanted - await self._cluster.served(GROUP, VERSION)
                if not missing:
                    return
                if not told:
                    log.warning("operator.waits_for_definitions", missing=sorted(missing))
                    told = True
            await asyncio.sleep(self._settings.crd_poll)

    async def _watch(self, signals: Callable[[], None]) -> None:
        await watch(
            self._config,
            list(self.caches.values()),
            namespaces=self._settings.namespaces,
            page=self._settings.page,
            inactivity=self._settings.watch_inactivity,
            started=signals,
        )
        raise Ended("kopf ended")

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync * random.uniform(0.9, 1.1))  # noqa: S311  # no secret
            await self.resync.first(self._settings.retry_period)
            if self._reconciling:
                self._add_all(over=self._settings.resync / 4)

    async def _lead(self) -> None:
        self._reconciling = True
        self._add_all(over=0)
        async with asyncio.TaskGroup() as tasks:
            for controller in self.controllers:
                work = self._while_leading(controller)
                tasks.create_task(controller.queue.run(controller.workers, work, limit=self._settings.reconcile_timeout))
                tasks.create_task(controller.background())

    def _while_leading(self, controller: Controller) -> Callable[[Key], Awaitable[Result]]:
        """Its reconcile; a leader that had to pause is no failure of the key."""

        async def work(key: Key) -> Result:
            with suppress(NotLeading):
                if self.leadership.leading():
                    return await controller.reconcile(key)
            return Result(self._settings.retry_period)

        return work

    def _add_all(self, *, over: float) -> None:
        """Every key once, spread over that many seconds."""
        for controller in self.controllers:
            for key in self.caches[controller.primary.plural].keys():  # noqa: SIM118  # no mapping
                controller.queue.add_after(key, random.uniform(0, over))  # noqa: S311  # no secret

    def _tell(self, change: Change) -> None:
        for controller in self.controllers:
            for key in controller.keys_of(change):
                if self._reconciling:
                    controller.queue.add(key)

    async def _drain(self) -> None:
        """No more keys; what runs may end."""
        self._reconciling = False
        for controller in self.controllers:
            controller.queue.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain):
                for controller in self.controllers:
                    await controller.queue.settled()
