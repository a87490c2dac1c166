"""The revisions of a document against a model of them: writes that end, writes that are cut off at any step, stale workers, sweeps.

The model is one text a source: what readers see. After every step a search must find exactly that text of each source, never an
older one, never two, and the numbers of live revisions must only have grown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shield.database.engine import create_engine
from shield.database.fence import JobFence
from shield.errors import LeaseLost
from shield.knowledge.bases import Bases
from shield.knowledge.embedding.builtin import BuiltinEmbedder
from shield.knowledge.embedding.cache import CachedEmbedder
from shield.knowledge.vectors.edge import EdgeIndex
from shield.settings import PostgresSettings
from tests.integration.knowledge.conftest import Breaking, Crash, Desk
from tests.scratch import scratch

T = TypeVar("T")
SOURCES = ("a", "b")
NOUNS = ("valve", "pump", "boiler", "turbine", "gasket", "sensor")
_POINTS = ("before_upsert", "after_upsert", "before_delete", "after_delete")
_VISIBLE = frozenset({"before_delete", "after_delete"})
"""Points after the moment in which readers see the new revision."""


def said(source: str, noun: str) -> str:
    return f"Report {source} says that the {noun} of the northern plant was inspected and found in order."


class Revisions(RuleBasedStateMachine):
    """One knowledge base with two sources."""

    dsn: str
    model: BuiltinEmbedder

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory(prefix="shield-revisions-", dir=scratch(), ignore_cleanup_errors=True)
        self.seen: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.runs = 0
        self.desk = self.run(self._open())

    async def _open(self) -> Desk:
        engine = create_engine(self.dsn, PostgresSettings())
        vectors = EdgeIndex(Path(self.directory.name))
        embedder = CachedEmbedder(self.model, engine)
        bases = Bases(engine, embedder.model, embedder.dim)
        type(self).made = getattr(type(self), "made", 0) + 1
        kb = await bases.create(f"kb-{type(self).made}", owner="local", graph=False)  # type: ignore[attr-defined]
        return Desk(engine, vectors, embedder, bases, kb, Path(self.directory.name))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.desk.vectors.close())
        self.run(self.desk.engine.dispose())
        self.runner.close()
        self.directory.cleanup()

    @rule(source=st.sampled_from(SOURCES), noun=st.sampled_from(NOUNS))
    def put(self, source: str, noun: str) -> None:
        """A write that ends."""
        stored = self.run(self.desk.put(source, said(source, noun)))
        assert stored.changed == (self.seen.get(source) != noun)
        self.seen[source] = noun

    @rule(source=st.sampled_from(SOURCES), noun=st.sampled_from(NOUNS), point=st.sampled_from(_POINTS))
    def cut_off(self, source: str, noun: str, point: str) -> None:
        """A write whose process is killed at a step; what it had made visible stays, the rest was never seen."""

        async def crash() -> None:
            raise Crash

        desk = self.desk.through(Breaking(self.desk.vectors, **{point: crash}))
        try:
            self.run(desk.put(source, said(source, noun)))
            reached = False  # unchanged, or a first revision: there was nothing to remove
        except Crash:
            reached = True
        if not reached or point in _VISIBLE:
            self.seen[source] = noun

    @precondition(lambda self: self.seen)
    @rule(source=st.sampled_from(SOURCES), noun=st.sampled_from(NOUNS))
    def stale_worker(self, source: str, noun: str) -> None:
        """A worker that lost its job while it wrote: refused, and nothing of it is seen."""
        if self.seen.get(source) == noun:
            return
        job = self.run(self.desk.job())

        async def taken_over() -> None:
            await self.desk.sql("UPDATE jobs SET fence = fence + 1 WHERE id = :id", id=job.job_id)

        desk = self.desk.through(Breaking(self.desk.vectors, after_upsert=taken_over))
        try:
            self.run(desk.put(source, said(source, noun), job=JobFence(job.job_id, job.fence)))
        except LeaseLost:
            return
        raise AssertionError("a stale worker wrote")

    @rule()
    def sweep(self) -> None:
        """What was cut off is removed; afterwards the index holds the live points and no others."""
        self.run(self.desk.impatient().sweep())
        self.run(self.desk.impatient().reconcile(self.desk.kb))
        self._check_points()

    @invariant()
    def readers_see_exactly_what_the_model_says(self) -> None:
        found = set(self.run(self.desk.texts("Which part of the northern plant was inspected?")))
        assert found == {said(source, noun) for source, noun in self.seen.items()}

    @invariant()
    def live_revisions_only_grow(self) -> None:
        rows = self.run(
            self.desk.sql(
                "SELECT source, live_revision FROM documents WHERE knowledge_base_id = :kb AND live_revision IS NOT NULL",
                kb=self.desk.kb.id,
            )
        )
        now = dict(tuple(row) for row in rows)
        assert all(now[source] >= number for source, number in self.numbers.items())
        self.numbers = now

    def _check_points(self) -> None:
        async def points() -> set[tuple[str, int]]:
            from shield.knowledge.bases import space_of

            return {
                (str(payload["document"]), int(str(payload["revision"])))
                async for _, payload in self.desk.vectors.scan(space_of(self.desk.kb))
            }

        live = self.run(
            self.desk.sql(
                "SELECT id::text, live_revision FROM documents WHERE knowledge_base_id = :kb AND live_revision IS NOT NULL",
                kb=self.desk.kb.id,
            )
        )
        assert self.run(points()) == {tuple(row) for row in live}


def test_readers_see_what_the_model_says_whatever_is_cut_off(dsn: str, model: BuiltinEmbedder) -> None:
    machine = type("OnThisDatabase", (Revisions,), {"dsn": dsn, "model": model})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True),
    )
