"""The log tells a write under a current right from one under an outdated one, whatever the product's own fences say."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.chaos.write_log import install, violations, written

KB = "a" * 32


@pytest.fixture
def database(dsn: str) -> Iterator[psycopg.Connection]:
    """With a table of LightRAG's from before and one from after the log has begun, and without the product's fence."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE lightrag_before (workspace text, id text)")
        install(dsn)
        install(dsn)
        connection.execute("CREATE TABLE lightrag_after (workspace text, id text)")
        connection.execute("INSERT INTO kb_writer (kb, epoch) VALUES (%s, 7)", [KB])
        connection.execute("INSERT INTO knowledge_bases (name, embedding_model, embedding_dim, owner) VALUES ('kb', 'm', 8, 'local')")
        yield connection


def write(connection: psycopg.Connection, epoch: int, workspace: str = KB, table: str = "lightrag_after") -> None:
    connection.execute("SELECT set_config('shield.kb', %s, true), set_config('shield.epoch', %s, true)", [KB, str(epoch)])
    connection.execute(f"INSERT INTO {table} VALUES (%s, 'x')".encode(), [workspace])


class TestTheGraph:
    @pytest.mark.parametrize("table", ["lightrag_before", "lightrag_after"])
    def test_a_write_under_the_current_epoch_is_logged_and_right(self, database: psycopg.Connection, dsn: str, table: str) -> None:
        with database.transaction():
            write(database, 7, table=table)
        assert written(dsn) == {"graph": 1}
        assert violations(dsn) == []

    def test_a_write_under_an_outdated_epoch_is_found(self, database: psycopg.Connection, dsn: str) -> None:
        with database.transaction():
            write(database, 6)
        (found,) = violations(dsn)
        assert "with 6, current was 7" in found

    def test_what_counts_is_the_epoch_at_the_commit(self, database: psycopg.Connection, dsn: str) -> None:
        with psycopg.connect(dsn) as paused:
            write(paused, 7)
            database.execute("UPDATE kb_writer SET epoch = 8")
        (found,) = violations(dsn)
        assert "with 7, current was 8" in found

    def test_a_write_that_is_not_committed_is_none(self, database: psycopg.Connection, dsn: str) -> None:
        with psycopg.connect(dsn) as refused:
            write(refused, 6)
            refused.rollback()
        assert written(dsn) == {}
        assert violations(dsn) == []

    def test_rows_of_another_knowledge_base_are_found(self, database: psycopg.Connection, dsn: str) -> None:
        with database.transaction():
            write(database, 7, workspace="b" * 32)
        (found,) = violations(dsn)
        assert "1 rows of another knowledge base" in found


class TestJobs:
    @pytest.fixture
    def job(self, database: psycopg.Connection) -> UUID:
        job = uuid4()
        database.execute(
            "INSERT INTO jobs (id, kind, knowledge_base_id, knowledge_base, principal, request_hash, deadline_at, status, fence)"
            " SELECT %s, 'ingest', id, name, 'local', 'h', now() + interval '1 day', 'processing', 3 FROM knowledge_bases",
            [job],
        )
        return job

    def test_an_outcome_of_a_job_that_is_held_is_right(self, database: psycopg.Connection, dsn: str, job: UUID) -> None:
        outcome(database, job)
        assert written(dsn) == {"outcome": 1}
        assert violations(dsn) == []

    def test_an_outcome_whose_fence_moved_on_before_the_commit_is_found(self, database: psycopg.Connection, dsn: str, job: UUID) -> None:
        with psycopg.connect(dsn) as paused:
            outcome(paused, job)
            database.execute("UPDATE jobs SET fence = 4 WHERE id = %s", [job])
        (found,) = violations(dsn)
        assert "with 3, current was 4" in found

    def test_an_outcome_after_the_end_is_found(self, database: psycopg.Connection, dsn: str, job: UUID) -> None:
        database.execute("UPDATE jobs SET status = 'failed', finished_at = now() WHERE id = %s", [job])
        outcome(database, job)
        (found,) = violations(dsn)
        assert "nobody held it" in found

    def test_an_outcome_in_the_transaction_that_ends_its_job_is_right(self, database: psycopg.Connection, dsn: str, job: UUID) -> None:
        with database.transaction():
            outcome(database, job)
            database.execute("UPDATE jobs SET status = 'failed', finished_at = now() WHERE id = %s", [job])
        assert violations(dsn) == []

    @pytest.mark.parametrize(("fence", "right"), [(3, True), (2, False)])
    def test_a_revision_may_be_made_live_by_the_run_that_is_current(
        self, database: psycopg.Connection, dsn: str, job: UUID, fence: int, right: bool
    ) -> None:
        document = uuid4()
        database.execute(
            "INSERT INTO documents (id, knowledge_base_id, source, kind) SELECT %s, id, 's', 'note' FROM knowledge_bases",
            [document],
        )
        database.execute(
            "INSERT INTO document_revisions (document_id, revision, job_id, fence, content_hash, text) VALUES (%s, 1, %s, %s, 'h', 't')",
            [document, job, fence],
        )
        database.execute("UPDATE documents SET live_revision = 1 WHERE id = %s", [document])
        assert written(dsn) == {"live": 1}
        assert (violations(dsn) == []) is right


def outcome(connection: psycopg.Connection, job: UUID) -> None:
    connection.execute("INSERT INTO job_outcomes (job_id, number, source, status) VALUES (%s, 1, 's', 'stored')", [job])
