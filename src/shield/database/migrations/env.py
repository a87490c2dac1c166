"""Alembic's environment: runs the migrations on the connection it is handed."""

from __future__ import annotations

from alembic import context

from shield.database.tables import metadata


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """LightRAG's tables are its own: autogenerate and `check` do not look at them."""
    return not (kind == "table" and name is not None and name.startswith("lightrag_"))


connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, include_name=_ours, compare_server_default=False)
with context.begin_transaction():
    context.run_migrations()
