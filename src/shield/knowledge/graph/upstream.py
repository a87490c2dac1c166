"""What is changed in LightRAG 1.5.7 and its driver besides the merge (`merge.py`), each with its reason."""

from __future__ import annotations

from typing import Any


def forbid_migrations() -> None:
    """A reader makes and alters no tables."""
    import lightrag.kg.pgtable_impl as tables
    import lightrag.kg.postgres_impl as postgres

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    postgres.PostgreSQLDB.check_tables = nothing
    postgres.PostgreSQLDB.configure_vector_extension = nothing
    postgres.PGVectorStorage.setup_table = staticmethod(nothing)
    tables._DDL = "SELECT 1"  # noqa: SLF001
    tables.PGTableGraphStorage._normalize_legacy_edges = nothing  # noqa: SLF001


def keep_sessions_as_they_are() -> None:
    """No `RESET ALL` after each statement: with the storages we use nothing is ever set in a session, and it was every third round trip."""
    from asyncpg.connection import Connection

    Connection.get_reset_query = lambda _: ""
