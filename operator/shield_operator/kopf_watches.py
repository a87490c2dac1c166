"""kopf, reduced to what we take from it: it lists, watches, reconnects and authenticates; a handler passes each event to a cache.

What is switched off, and why: peering (our Lease decides), events of log lines, scanning for new CRDs (it reads every CRD of the cluster;
the start waits for ours instead), finalizers, annotations and the copies of objects that they are computed from (two thirds of an event's cost). A failing API server is asked again for ever, at
most every ten seconds, so an outage restarts nothing. kopf ends with an exception if a watch cannot go on; so does the process then.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kopf

from shield_operator.cluster import Obj
from shield_operator.watching import Cache

_PAUSES = (0.5, 1, 2, 5, 10)


class _ForEver:
    """Pauses between tries: the last one is repeated."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


class _NoEssence:
    """In the place of kopf's `DiffBaseStorage`: nothing here asks what changed since the last handling, so no object is copied to compare it."""

    def fetch(self, **_: object) -> None:
        return None

    def build(self, **_: object) -> dict[str, Any]:
        return {}

    def store(self, **_: object) -> None:
        return None


class _NoProgress:
    """In the place of kopf's `ProgressStorage`: low-level handlers have none."""

    def fetch(self, **_: object) -> None:
        return None

    def clear(self, *, essence: dict[str, Any]) -> dict[str, Any]:
        return essence

    def store(self, **_: object) -> None:
        return None

    purge = touch = store

    def flush(self) -> None:
        return None


async def watch(
    configuration: Any, caches: Sequence[Cache], *, namespaces: Sequence[str], page: int, inactivity: float, started: Callable[[], None]
) -> None:
    """Feed the caches until cancelled.

    Args:
        configuration: how to reach the API server, as `cluster.configuration` tells.
        caches: what to feed, one for each kind.
        namespaces: where; none for all.
        page: objects a page of the first list.
        inactivity: seconds without event or bookmark after which a watch is opened anew.
        started: called once kopf has begun; it took over the process's signals, which it always does.
    """
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = page
    settings.watching.inactivity_timeout = inactivity
    settings.networking.error_backoffs = _ForEver()
    settings.networking.connect_timeout = 10
    settings.persistence.diffbase_storage = _NoEssence()
    settings.persistence.progress_storage = _NoProgress()
    settings.queueing.idle_timeout = 0.1  # an idle worker holds its object's last body
    settings.queueing.exit_timeout = 0.1
    for cache in caches:
        kind = cache.kind
        if cache.watch.selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = cache.watch.selector
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"cache-{kind.plural}")(_pass_on(cache))

    async def login(**_: object) -> kopf.ConnectionInfo:
        return await _connection(configuration)

    kopf.on.login(registry=registry, id="login")(login)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    ours = asyncio.all_tasks()
    where: dict[str, Any] = {"namespaces": list(namespaces)} if namespaces else {"clusterwide": True}
    tasks = await kopf.spawn_tasks(registry=registry, settings=settings, standalone=True, **where)
    started()
    await kopf.run_tasks(tasks, ignored=ours)


def _pass_on(cache: Cache) -> Callable[..., Any]:
    async def handler(event: dict[str, Any], **_: object) -> None:
        body: Obj = event["object"]
        cache.deliver(body, deleted=event["type"] == "DELETED")

    return handler


async def _connection(configuration: Any) -> kopf.ConnectionInfo:
    """The client's settings in kopf's words; asked for anew whenever the API server does not accept the old ones."""
    token = await configuration.get_api_key_with_prefix("BearerToken") or ""
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert if not configuration.ca_cert_data else None,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        token=token.partition(" ")[2] or token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        username=configuration.username or None,
        password=configuration.password or None,
    )
