"""What must be true afterwards, counted from outside the product: from the rows, and from a log that triggers write."""

from __future__ import annotations

from typing import Any

import psycopg

_LOG = """
CREATE TABLE IF NOT EXISTS chaos_transitions (
  n bigserial PRIMARY KEY, job_id uuid NOT NULL, old text, new text NOT NULL, old_fence bigint, new_fence bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE OR REPLACE FUNCTION chaos_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO chaos_transitions (job_id, old, new, new_fence) VALUES (NEW.id, NULL, NEW.status, NEW.fence);
  ELSIF NEW.status IS DISTINCT FROM OLD.status OR NEW.fence IS DISTINCT FROM OLD.fence THEN
    INSERT INTO chaos_transitions (job_id, old, new, old_fence, new_fence) VALUES (NEW.id, OLD.status, NEW.status, OLD.fence, NEW.fence);
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER chaos_log AFTER INSERT OR UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION chaos_log();
"""
_ENDED = "('completed', 'failed', 'cancelled')"


def watch(dsn: str) -> None:
    """Log every change of a job's state from now on."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_LOG)


def unfinished(dsn: str, ids: list[str]) -> dict[str, int]:
    """How many of these jobs stand where; ended ones under their end state."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT status || CASE WHEN parked THEN ' parked' ELSE '' END, count(*) FROM jobs WHERE id = ANY(%s::uuid[]) GROUP BY 1", (ids,)
        )
        return dict(rows.fetchall())


def examine(dsn: str, ids: list[str]) -> dict[str, Any]:
    """The counts that must be zero, and how the jobs ended."""
    with psycopg.connect(dsn) as connection:

        def count(statement: str) -> int:
            row = connection.execute(statement.encode(), (ids,)).fetchone()
            return int(row[0]) if row else 0

        how = connection.execute(
            "SELECT status, coalesce(outcome, error_code, ''), count(*) FROM jobs WHERE id = ANY(%s::uuid[]) GROUP BY 1, 2 ORDER BY 1, 2",
            (ids,),
        ).fetchall()
        return {
            "accepted": len(ids),
            "lost": len(ids) - count("SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[])"),
            "not ended": count(f"SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND status NOT IN {_ENDED}"),
            "ended other than once": count(
                f"SELECT count(*) FROM (SELECT job_id FROM chaos_transitions WHERE job_id = ANY(%s::uuid[]) AND new IN {_ENDED}"
                f" AND old IS DISTINCT FROM new GROUP BY job_id HAVING count(*) <> 1) AS odd"
            ),
            "changed after the end": count(f"SELECT count(*) FROM chaos_transitions WHERE job_id = ANY(%s::uuid[]) AND old IN {_ENDED}"),
            "fence not grown": count("SELECT count(*) FROM chaos_transitions WHERE job_id = ANY(%s::uuid[]) AND new_fence < old_fence"),
            "not completed": count("SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND status <> 'completed'"),
            "restarted runs": count("SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND fence > 1"),
            "ends": {f"{status} {detail}".strip(): number for status, detail, number in how},
        }
