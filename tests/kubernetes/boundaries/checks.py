"""What must be true of each IngestJob afterwards, seen from outside: API server, database, and the record of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import psycopg

from tests.kubernetes.boundaries.recorder import Story, condition
from tests.kubernetes.boundaries.site import PAGES
from tests.kubernetes.boundaries.stage import Expected, Stage
from tests.kubernetes.kubelet import Run

_EVENTS = {"Started", "Running", "Succeeded", "Failed"}
_TOGETHER = 0.2
"""Seconds by which the end of a process and the start of the next may seem to overlap: both are seen a moment late."""
_CLAIMS = """
CREATE TABLE IF NOT EXISTS proof_claims (n bigserial PRIMARY KEY, job_id uuid NOT NULL, runner text NOT NULL, worker text NOT NULL);
CREATE OR REPLACE FUNCTION proof_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.worker IS NOT NULL AND (TG_OP = 'INSERT' OR NEW.worker IS DISTINCT FROM OLD.worker) THEN
    INSERT INTO proof_claims (job_id, runner, worker) VALUES (NEW.id, NEW.runner, NEW.worker);
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER proof_claim AFTER INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION proof_claim();
"""


@dataclass
class Found:
    """What is wrong, sorted."""

    lost: list[str] = field(default_factory=list)
    """Work that was to be done and was not."""
    duplicate: list[str] = field(default_factory=list)
    """Work that was done, or begun, twice without a reason."""
    wrong: list[str] = field(default_factory=list)
    """Anything else: conditions, Events, what is left over."""

    @property
    def all(self) -> list[str]:
        """Everything, in a sentence each."""
        sorts = (("LOST", self.lost), ("DUPLICATE", self.duplicate), ("WRONG", self.wrong))
        return [f"{sort}: {one}" for sort, faults in sorts for one in faults]


def watch_claims(dsn: str) -> None:
    """Log from now on who claims which row."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CLAIMS)


def fleet_claims(dsn: str) -> tuple[int, int]:
    """Rows of pods that a worker of the fleet claimed, and claims in all."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE runner <> 'fleet' AND worker IN (SELECT id FROM workers)), count(*) FROM proof_claims"
        ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)


def claimants(dsn: str, runner: str) -> set[str]:
    """Whoever claimed rows of this runner: `fleet` for each worker of the fleet, else the name of the pod's process."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT DISTINCT CASE WHEN w.runner = 'fleet' THEN 'fleet' ELSE c.worker END"
            " FROM proof_claims c LEFT JOIN workers w ON w.id = c.worker WHERE c.runner = %s",
            (runner,),
        )
        return {str(claimant) for (claimant,) in found}


def idle_workers(dsn: str) -> int:
    """Workers of the fleet that live."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM workers WHERE runner = 'fleet' AND seen_at > now() - interval '30 seconds'"
        ).fetchone()
        return int(row[0]) if row else 0


def rows(dsn: str, uid: str) -> list[tuple[str, str]]:
    """Status and runner of each row of an IngestJob."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT status, runner FROM jobs WHERE idempotency_key = %s OR runner = %s", (uid, f"ingestjob:{uid}"))
        return [(str(status), str(runner)) for status, runner in found]


def documents(dsn: str, prefix: str) -> Counter[str]:
    """Live documents below an address, by address."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT source FROM documents WHERE live_revision IS NOT NULL AND starts_with(source, %s)", (prefix,))
        return Counter(str(source) for (source,) in found)


def examine(stage: Stage) -> Found:
    """All IngestJobs of a case that has settled."""
    found = Found()
    for name, expected in stage.expected.items():
        story = stage.story(name)
        label = f"{stage.namespace}/{name}"
        if expected.reason:
            _conditions(found, label, story, expected)
        _events(found, label, story)
        _jobs(found, label, story, expected)
        _processes(found, label, stage.runs(name), expected)
        _database(found, label, stage, story, expected)
    return found


def _conditions(found: Found, label: str, story: Story, expected: Expected) -> None:
    wanted = ("Complete" if expected.complete else "Failed", expected.reason)
    if story.ends != [wanted]:
        found.wrong.append(f"{label} ended as {story.ends}, not as {wanted}")
        return
    status = story.latest["status"]
    complete, failure = condition(story.latest, "Complete"), condition(story.latest, "Failed")
    if (complete["status"] == "True") == (failure["status"] == "True"):
        found.wrong.append(f"{label}: Complete and Failed are both {complete['status']}")
    if {one["type"] for one in status["conditions"]} != {"Accepted", "Suspended", "Complete", "Failed"}:
        found.wrong.append(f"{label} has not the four conditions: {status['conditions']}")
    if not status.get("completionTime"):
        found.wrong.append(f"{label} ended without completionTime")
    if not story.gone and status.get("observedGeneration") != story.latest["metadata"]["generation"]:
        found.wrong.append(f"{label}: generation {story.latest['metadata']['generation']}, observed {status.get('observedGeneration')}")


def _events(found: Found, label: str, story: Story) -> None:
    counts = Counter(story.events.values())
    if strange := set(counts) - _EVENTS:
        found.wrong.append(f"{label} has Events {sorted(strange)}")
    if many := {reason: number for reason, number in counts.items() if number > 1 and reason != "Running"}:
        found.duplicate.append(f"{label} has Events more than once: {many}")


def _jobs(found: Found, label: str, story: Story, expected: Expected) -> None:
    made = story.job_names
    if len(made) > expected.jobs or story.together > 1:
        found.duplicate.append(f"{label} had {len(made)} Jobs, {story.together} at once: {made}")
    elif len(made) < expected.jobs:
        found.lost.append(f"{label} had {len(made)} Jobs, not {expected.jobs}")
    if made != [f"{story.name}-{number}" for number in range(1, len(made) + 1)]:
        found.wrong.append(f"{label}: names of Jobs {made}")


def _processes(found: Found, label: str, runs: Sequence[Run], expected: Expected) -> None:
    if len(runs) > max(expected.pods):
        found.duplicate.append(f"{label}: {len(runs)} processes ran, not {expected.pods}: exit codes {[run.code for run in runs]}")
    elif len(runs) not in expected.pods:
        found.lost.append(f"{label}: {len(runs)} processes ran, not {expected.pods}")
    for one, other in pairwise(runs):
        if not expected.overlap and (one.ended is None or other.began < one.ended - _TOGETHER):
            found.duplicate.append(f"{label}: {one.pod} and {other.pod} ran at the same time")


def _database(found: Found, label: str, stage: Stage, story: Story, expected: Expected) -> None:
    dsn = stage.world.fleet.dsn
    there = rows(dsn, story.uid)
    if len(there) > 1:
        found.duplicate.append(f"{label} has {len(there)} rows: {there}")
    wanted = [] if expected.row is None else [(expected.row, f"ingestjob:{story.uid}")]
    if len(there) <= 1 and there != wanted:
        found.lost.append(f"{label}: its rows are {there}, not {wanted}")
    stored = documents(dsn, stage.world.sites.url(stage.namespace, story.name).removesuffix("0"))
    if twice := [source for source, number in stored.items() if number > 1]:
        found.duplicate.append(f"{label} stored twice: {twice}")
    if expected.documents is not None and len(stored) != expected.documents:
        found.lost.append(f"{label}: {len(stored)} of {expected.documents} documents are there")
    if len(stored) > PAGES:
        found.duplicate.append(f"{label}: {len(stored)} documents of {PAGES} pages")
