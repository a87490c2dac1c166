"""IngestJobs: the rows of pods by runner; only additions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_jobs_runner", "jobs", ["runner"], unique=False, postgresql_where=sa.text("runner <> 'fleet'"))
    op.execute("UPDATE schema_version SET version = '0003'")


def downgrade() -> None:
    op.drop_index("ix_jobs_runner", table_name="jobs", postgresql_where=sa.text("runner <> 'fleet'"))
    op.execute("UPDATE schema_version SET version = '0002'")
