"""What the API server told about IngestJobs, Jobs and Events from the first to the last moment, whoever forgot it since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.kubernetes.api import Api, Obj
from tests.kubernetes.kubelet import OWNER_LABEL

Name = tuple[str, str]


def condition(obj: Obj, type_: str) -> Obj:
    """A condition of an object; empty if it has none such."""
    conditions = obj.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == type_), {})


def ended(obj: Obj) -> bool:
    """It completed or failed."""
    return any(condition(obj, type_).get("status") == "True" for type_ in ("Complete", "Failed"))


@dataclass
class Story:
    """One IngestJob, by uid."""

    namespace: str
    name: str
    uid: str
    latest: Obj
    gone: bool = False
    ends: list[tuple[str, str]] = field(default_factory=list)
    """Each other end that it ever had: condition and reason."""
    jobs: dict[str, Obj] = field(default_factory=dict)
    """Its Jobs that ever were, as they were last, by uid."""
    live_jobs: set[str] = field(default_factory=set)
    together: int = 0
    """Most of its Jobs that were there, undeleted and unfinished, at the same time."""
    events: dict[str, str] = field(default_factory=dict)
    """Its Events: uid and reason."""

    @property
    def job_names(self) -> list[str]:
        """Of all its Jobs that ever were."""
        return sorted(job["metadata"]["name"] for job in self.jobs.values())


class Recorder:
    """`run` until cancelled; in one event loop with who reads it."""

    def __init__(self, api: Api) -> None:
        """Nothing is heard yet."""
        self._api = api
        self._stories: dict[str, Story] = {}
        self._names: dict[Name, str] = {}
        self._running: dict[str, set[str]] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Listen."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen("ingestjobs", self._ingestjob))
            tasks.create_task(self._listen("jobs", self._job))
            tasks.create_task(self._listen("events", self._event))

    def story(self, namespace: str, name: str) -> Story | None:
        """Of the newest IngestJob of that name."""
        uid = self._names.get((namespace, name))
        return self._stories.get(uid) if uid else None

    def stories(self, namespace: str) -> list[Story]:
        """All of a namespace."""
        return [story for story in self._stories.values() if story.namespace == namespace]

    async def until(self, holds: Callable[[], bool], what: str, limit: float) -> None:
        """Wait for news until something holds.

        Raises:
            AssertionError: it did not within `limit` seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while not holds():
            self._news.clear()
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + 1)):
                    await self._news.wait()
            except TimeoutError:
                if loop.time() >= deadline and not holds():
                    raise AssertionError(f"not within {limit:.0f} s: {what}") from None

    async def _listen(self, plural: str, take: Callable[[str, Obj], None]) -> None:
        async for event, obj in self._api.watch(plural):
            take(event, obj)
            self._news.set()

    def _ingestjob(self, event: str, obj: Obj) -> None:
        meta = obj["metadata"]
        story = self._stories.setdefault(meta["uid"], Story(meta["namespace"], meta["name"], meta["uid"], obj))
        story.latest = obj
        story.gone = event == "DELETED"
        if not story.gone or (meta["namespace"], meta["name"]) not in self._names:
            self._names[meta["namespace"], meta["name"]] = meta["uid"]
        for type_ in ("Complete", "Failed"):
            found = condition(obj, type_)
            end = (type_, found.get("reason", ""))
            if found.get("status") == "True" and (not story.ends or story.ends[-1] != end):
                story.ends.append(end)

    def _job(self, event: str, obj: Obj) -> None:
        meta = obj["metadata"]
        owner = next((one["uid"] for one in meta.get("ownerReferences", ()) if one["kind"] == "IngestJob"), None)
        if owner is None or OWNER_LABEL not in meta.get("labels", {}):
            return
        story = self._stories.setdefault(owner, Story(meta["namespace"], meta["labels"][OWNER_LABEL], owner, {"metadata": {}}))
        story.jobs[meta["uid"]] = obj
        running = self._running.setdefault(owner, set())
        if event == "DELETED":
            story.live_jobs.discard(meta["uid"])
            running.discard(meta["uid"])
            return
        story.live_jobs.add(meta["uid"])
        if "deletionTimestamp" in meta or ended(obj):
            running.discard(meta["uid"])
        else:
            running.add(meta["uid"])
            story.together = max(story.together, len(running))

    def _event(self, event: str, obj: Obj) -> None:
        about = obj["involvedObject"]
        if event == "ADDED" and about.get("kind") == "IngestJob" and about.get("uid") in self._stories:
            self._stories[about["uid"]].events[obj["metadata"]["uid"]] = obj["reason"]
