"""The right to write a knowledge base's graph: one holder, one lease, one epoch that only grows.

LightRAG takes one writer a workspace and knows no fencing of its own. The row `kb_writer(kb, epoch, holder, lease_until)` names
the writer; the database's clock decides. A graph process carries its epoch as a session setting on every connection, and a
trigger on each of LightRAG's tables (`shield_fence`) refuses an outdated one. The trigger holds a shared advisory lock to the
end of its transaction and a new epoch is made under the exclusive one, so no write of the old writer can commit after the new
writer has begun to look: a paused or cut-off process cannot write, and half a write is never overlooked.

The epoch grows with every new graph process; a holder that comes back to its own still running process keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.errors import LeaseLost
from shield.knowledge.graph.model import workspace

_LOCK_SPACE = 21320  # of the two-part advisory locks; the migration's `shield_fence` names it too
_SETUP = 21321
_LOCK_NOT_AVAILABLE = "55P03"
_TRY_AGAIN = 0.1


@dataclass
class Hold:
    """The writer's place, taken."""

    knowledge_base_id: UUID
    epoch: int
    orderly: bool
    """The last writer ended between two units of work. Kept in the row: its lease is NULL after an orderly end, and a past time
    after any other."""


class GraphWriter:
    """The writers' rows, as one holder sees them."""

    def __init__(self, engine: AsyncEngine, holder: str, lease: timedelta) -> None:
        self._engine, self._holder, self._lease = engine, holder, lease

    async def take(self, knowledge_base_id: UUID, keep: int | None = None) -> Hold | None:
        """Become the writer; None while somebody else is.

        Args:
            knowledge_base_id: whose graph.
            keep: the epoch of this holder's running process, which stays if nobody wrote in between.
        """
        names = {"kb": workspace(knowledge_base_id), "holder": self._holder, "lease": self._lease}
        try:
            async with self._engine.begin() as connection:
                await connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
                await connection.execute(sa.text("INSERT INTO kb_writer (kb) VALUES (:kb) ON CONFLICT DO NOTHING"), names)
                row = (
                    await connection.execute(
                        sa.text(
                            "SELECT epoch, holder IS NOT DISTINCT FROM :holder AS own, coalesce(lease_until > now(), false) AS held,"
                            " lease_until IS NULL AS orderly"
                            " FROM kb_writer WHERE kb = :kb FOR UPDATE"
                        ),
                        names,
                    )
                ).one()
                if row.held and not row.own:
                    return None
                step = 0 if row.own and row.epoch == keep else 1
                if step:
                    await connection.execute(
                        sa.text("SELECT pg_advisory_xact_lock(:space, hashtext(:kb))"), {"space": _LOCK_SPACE, "kb": names["kb"]}
                    )
                taken = await connection.execute(
                    sa.text(
                        "UPDATE kb_writer SET epoch = epoch + :step, holder = :holder, lease_until = clock_timestamp() + :lease"
                        " WHERE kb = :kb RETURNING epoch"
                    ),
                    {**names, "step": step},
                )
                return Hold(knowledge_base_id, int(taken.scalar_one()), bool(row.orderly))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                return None  # a write of the last writer has not ended yet
            raise

    async def renew(self, hold: Hold) -> None:
        """Keep the lease for its full length from now.

        Raises:
            LeaseLost: it has lapsed and somebody else has taken over.
        """
        async with self._engine.begin() as connection:
            renewed = await connection.execute(
                sa.text("UPDATE kb_writer SET lease_until = clock_timestamp() + :lease WHERE kb = :kb AND epoch = :epoch"),
                {"lease": self._lease, "kb": workspace(hold.knowledge_base_id), "epoch": hold.epoch},
            )
            if renewed.rowcount != 1:
                raise LeaseLost

    async def release(self, hold: Hold) -> None:
        """Let others write, and tell them in what order they find the graph; no error if they write already."""
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.text(
                    "UPDATE kb_writer SET lease_until = CASE WHEN :orderly THEN NULL ELSE to_timestamp(0) END"
                    " WHERE kb = :kb AND epoch = :epoch"
                ),
                {"kb": workspace(hold.knowledge_base_id), "epoch": hold.epoch, "orderly": hold.orderly},
            )

    @asynccontextmanager
    async def fenced(self, hold: Hold) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits only as the writer of this epoch, and may write LightRAG's tables.

        Raises:
            LeaseLost: the epoch is outdated; nothing was written.
        """
        async with self._engine.begin() as connection:
            kb, epoch = workspace(hold.knowledge_base_id), hold.epoch
            current = await connection.execute(
                sa.text("SELECT 1 FROM kb_writer WHERE kb = :kb AND epoch = :epoch FOR SHARE"), {"kb": kb, "epoch": epoch}
            )
            if current.first() is None:
                raise LeaseLost
            await connection.execute(
                sa.text("SELECT set_config('shield.kb', :kb, true), set_config('shield.epoch', :epoch, true)"),
                {"kb": kb, "epoch": str(epoch)},
            )
            yield connection

    @asynccontextmanager
    async def setting_up(self, limit: timedelta) -> AsyncIterator[None]:
        """Hold off every other process that makes or alters LightRAG's tables; at the end all of them have the fence.

        No transaction is open meanwhile and nobody sleeps inside a statement: LightRAG builds indexes concurrently, which waits
        for both. A process that is paused in here is cut off by the server after `limit`, so nobody waits for ever.

        Raises:
            TimeoutError: the others took longer than `limit`.
        """
        async with self._engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            try:
                async with asyncio.timeout(limit.total_seconds()):
                    while not (  # noqa: ASYNC110  the lock is another process's
                        await connection.execute(sa.text("SELECT pg_try_advisory_lock(:space, 0)"), {"space": _SETUP})
                    ).scalar():
                        await asyncio.sleep(_TRY_AGAIN)
                milliseconds = int(limit.total_seconds() * 1000)
                await connection.execute(sa.text(f"SET idle_session_timeout = {milliseconds}"))
                yield
                for table in await lightrag_tables(connection, unfenced=True):
                    await connection.execute(
                        sa.text(
                            f'CREATE TRIGGER shield_fence BEFORE INSERT OR UPDATE OR DELETE ON "{table}"'
                            " FOR EACH STATEMENT EXECUTE FUNCTION shield_fence()"
                        )
                    )
            finally:
                await connection.invalidate()  # with the session goes the lock, whatever state it is in


async def lightrag_tables(connection: AsyncConnection, *, unfenced: bool = False) -> list[str]:
    """LightRAG's tables, from the catalogue: all, or those without the fence."""
    without = "AND NOT EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'shield_fence')" if unfenced else ""
    rows = await connection.execute(
        sa.text(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"  # noqa: S608  our own words
            f" WHERE c.relkind = 'r' AND n.nspname = current_schema() AND starts_with(c.relname, 'lightrag_') {without} ORDER BY 1"
        )
    )
    return list(rows.scalars())
