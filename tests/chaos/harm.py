"""Carries a plan out: each blow in a task of its own, and everything is running again at the end."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil

from tests.chaos.plan import Harm
from tests.fleet import Fleet, Member


class Harmer:
    """Strikes the members of a fleet; two blows never meet on one member."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._locks: dict[str, asyncio.Lock] = {}
        self.done: list[str] = []

    async def carry_out(self, plan: list[Harm]) -> None:
        """All blows of the plan at their times; returns when each member runs again."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for blow in plan:
                await asyncio.sleep(max(0.0, blow.at - (time.monotonic() - began)))
                tasks.create_task(self._strike(blow))

    async def _strike(self, blow: Harm) -> None:
        async with self._locks.setdefault(f"{blow.whom}-{blow.which}", asyncio.Lock()):
            print(blow, flush=True)
            if blow.whom == "postgres":
                await (self._kill_postgres(blow) if blow.what == "kill" else self._pause_postgres(blow))
                return
            member = self._member(blow)
            if blow.what == "pause":
                member.pause()
                await asyncio.sleep(blow.lasts)
                member.go_on()
                return
            await asyncio.to_thread(member.kill)
            await asyncio.sleep(blow.lasts)
            await asyncio.to_thread(member.start, within=None)

    def _member(self, blow: Harm) -> Member:
        fleet = self._fleet
        if blow.whom == "worker":
            return fleet.workers[blow.which]
        if blow.whom == "api":
            return fleet.apis[blow.which]
        member = fleet.mcp if blow.whom == "mcp" else fleet.valkey
        assert member is not None
        return member

    async def _kill_postgres(self, blow: Harm) -> None:
        await asyncio.to_thread(self._fleet.kill_postgres)
        await asyncio.sleep(blow.lasts)
        await asyncio.to_thread(self._fleet.revive_postgres)

    async def _pause_postgres(self, blow: Harm) -> None:
        pid = int((self._fleet.postgres.directory / "postmaster.pid").read_text().split("\n", 1)[0])
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            _signal(process, signal.SIGSTOP)
        await asyncio.sleep(blow.lasts)
        for process in family:
            _signal(process, signal.SIGCONT)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
