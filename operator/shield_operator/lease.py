"""Leadership: a Lease that one replica holds, and everybody else waits for.

The rules are Kubernetes' own. A holder renews its Lease every `retry_period`. The others take it when they have seen it unchanged for
`lease_duration` on their own clock, so clocks of different nodes are never compared. A holder that could not renew for `renew_deadline` stops to
write at once: that is earlier than anyone may take over, by more than the longest request. If it finds its Lease taken it ends (`LeaseLost`); if it is
still its own, because the API server was away for everybody, it goes on. Every write of the Lease carries the resourceVersion that was read, so of
two takers one gets a conflict. A holder that ends in order gives the Lease back, and the next one starts at once.

`leading()` looks at the clock, not at a flag: a process that was paused past its deadline does not lead when it wakes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from shield_operator.cluster import LEASES, Cluster, ClusterError, Conflict, Key, NotFound, Obj

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """This process led, and somebody else does now."""


@dataclass(frozen=True)
class Terms:
    """Durations in seconds: `retry < deadline < duration`."""

    duration: float = 15
    deadline: float = 10
    retry: float = 2


class Leadership:
    """One replica's part in the election."""

    def __init__(self, cluster: Cluster, lease: Key, identity: str, terms: Terms, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._lease = lease
        self._identity = identity
        self._terms = terms
        self._clock = clock
        self._held_until = float("-inf")
        self._resigned = False
        self._observed: tuple[Any, ...] = ()
        self._observed_at = float("-inf")
        self.contacted = False
        """The Lease could be read or written at the last try."""

    def leading(self) -> bool:
        """This process leads, now."""
        return self._clock() < self._held_until

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(self._terms.retry)
        log.info("lease.acquired", identity=self._identity)

    async def keep(self) -> None:
        """Renew until cancelled. While the API server is away, this process stops leading, and leads again if nobody took over.

        Raises:
            LeaseLost: somebody else leads.
        """
        while True:
            await asyncio.sleep(self._terms.retry)
            if not await self._attempt() and self.contacted:
                raise LeaseLost("another replica took the Lease over")

    async def release(self) -> None:
        """Give it back, if it is held, and never take it again; the next one need not wait."""
        held, self._resigned = self.leading(), True
        self._held_until = float("-inf")
        if not held:
            return
        try:
            await self._give_back()
        except Conflict:  # with a renewal that was under way; there will be no other
            with suppress(ClusterError):
                await self._give_back()
        except ClusterError as error:
            log.warning("lease.not_released", error=str(error))

    async def _give_back(self) -> None:
        found = await self._cluster.get(LEASES, *self._lease)
        if found["spec"].get("holderIdentity") == self._identity:
            spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
            await self._cluster.replace(LEASES, *self._lease, {**found, "spec": spec})
            log.info("lease.released")

    async def _attempt(self) -> bool:
        """Take or renew it; tells whether this process leads."""
        if self._resigned:
            return False
        started = self._clock()
        try:
            held = await self._take()
            self.contacted = True
        except ClusterError as error:
            self.contacted = False
            log.warning("lease.unreachable", error=str(error), leading=self.leading())
            return self.leading()
        self._held_until = started + self._terms.deadline if held and not self._resigned else float("-inf")
        return held

    async def _take(self) -> bool:
        try:
            found = await self._cluster.get(LEASES, *self._lease)
        except NotFound:
            return await self._create()
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._observed:
            self._observed, self._observed_at = seen, self._clock()
        ours = holder == self._identity
        expired = self._clock() >= self._observed_at + float(spec.get("leaseDurationSeconds") or self._terms.duration)
        if holder and not ours and not expired:
            return False
        new = {**spec, **self._spec(), "leaseTransitions": (spec.get("leaseTransitions") or 0) + (0 if ours else 1)}
        if ours and spec.get("acquireTime"):
            new["acquireTime"] = spec["acquireTime"]
        written = await self._cluster.replace(LEASES, *self._lease, {**found, "spec": new})
        return bool(written["spec"]["holderIdentity"] == self._identity)

    async def _create(self) -> bool:
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._lease.name, "namespace": self._lease.namespace},
            "spec": {**self._spec(), "leaseTransitions": 0},
        }
        await self._cluster.create(LEASES, self._lease.namespace, body)
        return True

    def _spec(self) -> Obj:
        now = _now()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.duration)),
            "acquireTime": now,
            "renewTime": now,
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
