"""What a case is, and where it plays: a namespace of its own, IngestJobs, and what must have become of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.kubernetes.api import Obj
from tests.kubernetes.api_proxy import ApiProxy, Rule
from tests.kubernetes.boundaries.recorder import Story, condition, ended
from tests.kubernetes.boundaries.site import PAGES
from tests.kubernetes.boundaries.world import BASE, World
from tests.kubernetes.kubelet import Behaviour, Run


@dataclass(frozen=True)
class Expected:
    """What must have become of an IngestJob."""

    reason: str = "Completed"
    """Empty: it has no end of its own."""
    complete: bool = True
    row: str | None = "completed"
    """Its row's end; None: there is none."""
    documents: int | None = PAGES
    """None: whatever was done until then."""
    jobs: int = 1
    """Jobs that were ever made for it."""
    pods: tuple[int, ...] = (1,)
    """How many processes may have run."""
    overlap: bool = False
    """A process may begin while its predecessor hands the row back: the row's lease keeps them apart."""
    gone: bool = False
    """It was deleted in the end."""


def failed(reason: str, *, row: str | None = "cancelled", **more: Any) -> Expected:
    """It failed."""
    return Expected(reason, complete=False, row=row, documents=more.pop("documents", None), **more)


Play = Callable[["Stage"], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One boundary."""

    name: str
    play: Play
    smoke: bool = False
    """Also in the short form."""
    alone: bool = False
    """It takes something from everybody: the operator, the watches, the orchestrator. No two such cases play at the same time."""
    hardy: bool = False
    """It may play beside those: it asks nothing of the operator's doors, and whatever happens to the operator must not change its end."""


@dataclass(eq=False)
class Stage:
    """Where a case plays."""

    world: World
    namespace: str
    expected: dict[str, Expected] = field(default_factory=dict)
    rules: list[tuple[ApiProxy, Rule]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was measured on the way; shown with the result."""
    settled: float = 0
    """When the API server last said so, on the monotonic clock."""

    # -- what is there ------------------------------------------------------------------------------------------------

    async def submit(
        self, name: str, expected: Expected | None = None, *, held: bool = False, do: Behaviour | None = None, **spec: Any
    ) -> str:
        """An IngestJob that crawls its site; its uid."""
        world = self.world
        if held:
            world.sites.hold(self.namespace, name)
        if do is not None:
            world.kubelet.behave(self.namespace, name, do)
        web = {"url": world.sites.url(self.namespace, name), "maxPages": PAGES, "maxDepth": 1, "render": "http"}
        body: Obj = {
            "apiVersion": "shield.hx-citadel.io/v1alpha1",
            "kind": "IngestJob",
            "metadata": {"name": name},
            "spec": {"source": {"web": web}, "knowledgeBase": BASE, **spec},
        }
        self.expected[name] = expected or Expected()
        made = await world.api.create("ingestjobs", self.namespace, body)
        return str(made["metadata"]["uid"])

    async def submit_held(self, *names: str, expected: Expected | None = None, **spec: Any) -> list[str]:
        """Several that are in the middle of their work when this returns; their uids."""
        uids = [await self.submit(name, expected, held=True, **spec) for name in names]
        await self.reached(*names)
        return uids

    async def reached(self, *names: str) -> None:
        """Each asks for its last page (once more)."""
        for name in names:
            try:
                await self.world.sites.asked(self.namespace, name, self.world.patience)
            except TimeoutError:
                raise AssertionError(
                    f"{name} did not ask for its last page within {self.world.patience:.0f} s; {self._state(name)}"
                ) from None

    def release(self, *names: str) -> None:
        """Their last page is answered."""
        for name in names:
            self.world.sites.release(self.namespace, name)

    async def change(self, name: str, **spec: Any) -> None:
        """Change an IngestJob's spec."""
        await self.world.api.patch("ingestjobs", self.namespace, name, {"spec": spec})

    async def delete(self, plural: str, name: str) -> None:
        """Delete something by hand, and what it owns."""
        await self.world.api.delete(plural, self.namespace, name, propagationPolicy="Background")

    def rule(self, rule: Rule, door: ApiProxy | None = None) -> Rule:
        """From now on; it must happen before the case is over."""
        door = door or self.world.door
        self.rules.append((door, door.add(rule)))
        return rule

    def here(self, rest: str) -> str:
        """Something of this namespace, for a rule."""
        return f"/namespaces/{self.namespace}/{rest}"

    def runs(self, name: str) -> Sequence[Run]:
        """Its processes so far."""
        return self.world.kubelet.of(self.namespace, name)

    def story(self, name: str) -> Story:
        """What is known of it."""
        story = self.world.recorder.story(self.namespace, name)
        if story is None:
            raise AssertionError(f"nothing was ever heard of {self.namespace}/{name}")
        return story

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], bool], what: str, limit: float | None = None) -> None:
        """Wait for it."""
        await self.world.recorder.until(holds, f"{self.namespace}: {what}", limit or self.world.patience)

    async def until_condition(self, name: str, type_: str, status: str, reason: str) -> None:
        """An IngestJob's condition becomes so."""

        def holds() -> bool:
            story = self.world.recorder.story(self.namespace, name)
            found = condition(story.latest, type_) if story else {}
            return (found.get("status"), found.get("reason")) == (status, reason)

        try:
            await self.until(holds, f"{type_} {status} {reason} of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self._state(name)}") from None

    async def until_job(self, name: str, holds: Callable[[Obj], bool], what: str) -> None:
        """One of its Jobs becomes so."""
        await self.until(lambda: any(holds(job) for job in self.story(name).jobs.values()), f"{what} of a Job of {name}")

    async def until_stopped(self, *names: str) -> None:
        """No process of theirs runs."""
        for name in names:
            await self.until(lambda name=name: not self.world.kubelet.living(self.namespace, name), f"no pod of {name} runs")  # type: ignore[misc]

    async def until_happened(self, rule: Rule, what: str) -> None:
        """A rule's fault happened."""
        try:
            async with asyncio.timeout(self.world.patience):
                await rule.happened.wait()
        except TimeoutError:
            raise AssertionError(f"{self.namespace}: {what} never happened") from None

    async def fleet_works(self) -> None:
        """A job of the fleet, in this namespace's base, is accepted, claimed and done."""
        url = self.world.fleet.api_url
        spec = {"type": "document", "text": f"The fleet of {self.namespace} is idle and awake."}
        body = {"knowledge_base": f"{self.namespace}--{BASE}", "spec": spec}
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            async with session.post(f"{url}/lightrag/ingest-async", json=body) as answer:
                where = f"{url}/jobs/{(await answer.json())['job_id']}"
            said = "accepted"
            try:
                async with asyncio.timeout(self.world.patience):
                    while said != "completed":
                        await asyncio.sleep(0.2)
                        async with session.get(where) as answer:
                            said = (await answer.json())["status"]
            except TimeoutError:
                raise AssertionError(f"{self.namespace}: a job of the fleet is {said} after {self.world.patience:.0f} s") from None

    async def settle(self) -> None:
        """Every IngestJob has ended (or is gone), and no Job of theirs is left."""
        for name, expected in self.expected.items():

            def over(name: str = name, gone: bool = expected.gone) -> bool:
                story = self.world.recorder.story(self.namespace, name)
                return story is not None and not story.live_jobs and (story.gone if gone else ended(story.latest))

            try:
                await self.until(over, f"the end of {name}")
            except AssertionError as error:
                raise AssertionError(f"{error}; {self._state(name)}") from None
        for door, rule in self.rules:
            await self.until_happened(rule, f"{type(rule.fault).__name__} at {rule.method} {rule.where} {rule.body}")
            door.remove(rule)
        self.settled = time.monotonic()

    async def end(self) -> None:
        """Whatever became of the case, it disturbs nobody else."""
        for door, rule in self.rules:
            door.remove(rule)
        for name in self.expected:
            self.release(name)

    def _state(self, name: str) -> str:
        story = self.world.recorder.story(self.namespace, name)
        if story is None:
            return "nothing was heard of it"
        conditions = [f"{one['type']}={one['status']} {one['reason']}" for one in story.latest.get("status", {}).get("conditions", ())]
        runs = [(run.code, "lives" if run.lives else "ended") for run in self.runs(name)]
        return f"conditions {conditions}, Jobs {story.job_names} ({len(story.live_jobs)} left), processes {runs}"
