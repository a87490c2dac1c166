"""Migrations only expand, so that an older program goes on working on a newer schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield.database import migrate
from tests.unit.database.expanding import contractions

VERSIONS = sorted((Path(migrate.__file__).parent / "migrations" / "versions").glob("[0-9]*.py"))


@pytest.mark.parametrize("path", VERSIONS[1:], ids=lambda path: path.stem)
def test_a_migration_only_expands(path: Path) -> None:
    assert contractions(path.read_text(encoding="utf-8")) == []


def test_the_program_knows_all_its_migrations() -> None:
    assert migrate.revisions() == [path.name[:4] for path in VERSIONS]
    assert migrate.revisions()[-1] == migrate.HEAD


@pytest.mark.parametrize(
    "statement",
    [
        'op.drop_table("jobs")',
        'op.drop_column("jobs", "kind")',
        'op.rename_table("jobs", "tasks")',
        'op.alter_column("jobs", "kind", new_column_name="what")',
        'op.alter_column("jobs", "fence", type_=sa.Integer())',
        'op.alter_column("jobs", "worker", nullable=False)',
        'op.add_column("jobs", sa.Column("must", sa.Text(), nullable=False))',
        'op.create_index("uq_x", "jobs", ["kind"], unique=True)',
        'op.create_unique_constraint("uq_x", "jobs", ["kind"])',
        'op.create_check_constraint("ck_x", "jobs", "kind <> 1")',
        'op.create_foreign_key("fk_x", "jobs", "documents", ["a"], ["id"])',
        'op.drop_index("ix_jobs_relay")',
        'op.execute("ALTER TABLE jobs DROP COLUMN kind")',
        'op.execute(sa.text("ALTER TABLE jobs ALTER COLUMN fence TYPE integer"))',
        'op.execute("ALTER TABLE jobs ALTER COLUMN worker SET NOT NULL")',
        'op.execute("delete from jobs")',
        "op.execute(SOMETHING)",
        'with op.batch_alter_table("jobs") as batch_op:\n        batch_op.drop_column("kind")',
    ],
)
def test_whatever_contracts_is_refused(statement: str) -> None:
    assert contractions(f"def upgrade() -> None:\n    {statement}\n\n\ndef downgrade() -> None:\n    pass\n")


@pytest.mark.parametrize(
    "statement",
    [
        'op.create_table("new", sa.Column("a", sa.Text(), nullable=False))\n    op.create_index("uq_a", "new", ["a"], unique=True)',
        'op.add_column("jobs", sa.Column("may", sa.Text(), nullable=True))',
        'op.add_column("jobs", sa.Column("count", sa.Integer(), server_default=sa.text("0"), nullable=False))',
        'op.create_index("ix_x", "jobs", ["kind"])',
        "op.execute(\"UPDATE schema_version SET version = '0003'\")",
    ],
)
def test_whatever_expands_passes_and_the_way_back_may_drop(statement: str) -> None:
    assert contractions(f'def upgrade() -> None:\n    {statement}\n\n\ndef downgrade() -> None:\n    op.drop_table("new")\n') == []
