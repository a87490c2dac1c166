"""`/readyz` names each dependency; only what everything needs makes it 503."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield import __version__
from shield.app import probes
from shield.app.observing import gauges
from shield.database.migrate import HEAD
from shield.jobs.model import WorkerId
from shield.jobs.registry import WorkerInfo, Workers
from shield.jobs.repository import JobRepository
from shield.knowledge.vectors import create_index
from shield.resilience import Breakers
from shield.service.models import DependencyHealth
from shield.service.parts import Probe
from shield.settings import Settings, load
from tests.fleet.members import free_port
from tests.integration.jobs.support import Rows, a_request, job_settings
from tests.peers.valkey import Valkey


@pytest.fixture
def server_settings(data_dir: Path, valkey: Valkey) -> Settings:
    return load(
        mode="server",
        data_dir=data_dir,
        redis={"url": valkey.url, "timeout": 0.5},
        qdrant={"url": f"http://127.0.0.1:{free_port()}", "timeout": 0.5},
        postgres={"dsn": "postgresql://unused"},
    )


async def look(found: tuple[Probe, ...] | list[Probe]) -> dict[str, DependencyHealth]:
    return {health.name: health for health in [await probe() for probe in found]}


async def test_each_dependency_is_named_and_redis_away_is_only_a_degradation(
    engine: AsyncEngine, server_settings: Settings, valkey: Valkey
) -> None:
    breakers = Breakers(server_settings.breaker)
    index = create_index(server_settings, breakers)
    all_of_them = list(probes.of(engine, index, server_settings, breakers))
    found = await look(all_of_them)
    assert {name: health.status for name, health in found.items()} == {
        "postgres": "ok",
        "redis": "ok",
        "schema": "ok",
        "qdrant": "degraded",
        "embedding": "ok",
        "llm": "off",
    }
    assert found["schema"].detail == HEAD
    valkey.kill()
    found = await look(all_of_them)
    assert (found["redis"].status, found["postgres"].status) == ("degraded", "ok")
    valkey.start()
    assert (await look(all_of_them))["redis"].status == "ok"
    await index.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", f"0001; this version needs {HEAD}"),
        ("UPDATE schema_version SET min_app_version = '99.0.0'", f"{HEAD}; it needs Shield 99.0.0 or later"),
        ("DROP TABLE alembic_version", f"empty; this version needs {HEAD}"),
        ("DROP TABLE schema_version", "unknown"),
    ],
)
async def test_a_schema_that_this_version_cannot_use_is_down(engine: AsyncEngine, settings: Settings, change: str, says: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(change))
    breakers = Breakers(settings.breaker)
    index = create_index(settings, breakers)
    found = await look(list(probes.of(engine, index, settings, breakers)))
    assert (found["schema"].status, found["schema"].detail) == ("down", says)
    assert found["vectors"].detail == "edge"
    assert found["redis"].status == "off"
    await index.close()


async def test_one_look_at_the_database_tells_the_queue_and_the_fleet(engine: AsyncEngine) -> None:
    settings = job_settings()
    jobs, workers, rows = JobRepository(engine, settings), Workers(engine, settings), Rows(engine)
    empty = gauges(await jobs.stats())
    assert (empty.jobs, empty.oldest) == ({"pending": 0, "processing": 0, "parked": 0}, {"high": 0, "normal": 0, "low": 0})
    assert (empty.workers, empty.slots, empty.graph_waiting) == ({}, 0, 0)
    for name, offers in (("a", {"browser"}), ("b", set()), ("c", set())):
        await workers.announce(WorkerInfo(WorkerId(name), 4, frozenset(offers), __version__))
    await workers.announce(WorkerInfo(WorkerId("pod"), 1, frozenset(), __version__, "ingestjob:1"))
    await rows.run("UPDATE workers SET seen_at = now() - interval '1 hour' WHERE id = 'c'")
    hinted, waiting = (await jobs.accept(a_request())).id, (await jobs.accept(a_request())).id
    await jobs.accept(a_request(runner="ingestjob:1"))
    await rows.run("UPDATE jobs SET available_at = now() - interval '90 s', published_at = now() WHERE id = :id", id=hinted)
    await rows.run("UPDATE jobs SET available_at = now() - interval '40 s', priority = 'low' WHERE id = :id", id=waiting)
    await rows.graph_task(waiting)
    await rows.run("UPDATE graph_tasks SET created_at = now() - interval '20 s'")
    seen = gauges(await jobs.stats())
    assert seen.jobs["pending"] == 2
    assert seen.oldest == {"high": 0, "normal": pytest.approx(90, abs=15), "low": pytest.approx(40, abs=15)}
    assert seen.unpublished == pytest.approx(40, abs=15)
    assert seen.graph_waiting == 1
    assert seen.graph_oldest == pytest.approx(20, abs=15)
    assert (seen.workers, seen.slots) == ({frozenset({"browser"}): 1, frozenset(): 1}, 8)


async def test_a_claim_says_whether_a_lease_had_run_out(engine: AsyncEngine) -> None:
    jobs, rows = JobRepository(engine, job_settings()), Rows(engine)
    job_id = (await jobs.accept(a_request())).id
    first = await jobs.claim(job_id, WorkerId("a"))
    assert first is not None
    assert not first.lapsed
    await rows.lapse(job_id)
    second = await jobs.claim(job_id, WorkerId("b"))
    assert second is not None
    assert (second.lapsed, second.job.crashes) == (True, 1)
    await jobs.hand_back(second)
    third = await jobs.claim(job_id, WorkerId("c"))
    assert third is not None
    assert not third.lapsed
