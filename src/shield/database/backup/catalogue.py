"""A database's tables and sequences as PostgreSQL's catalogue knows them, and the statements that make foreign tables again.

All reads happen in the caller's transaction, so in a snapshot they belong to it. What is read at a backup passes the same checks as what
is read from a file: a backup that could not be restored is refused when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql
from pydantic import ValidationError

from shield.database.backup.archive import SequenceDef
from shield.database.backup.structure import FOREIGN, OURS, ColumnDef, ConstraintDef, ForeignDef, IndexDef, TableDef
from shield.errors import BackupPlaceRefused

Connection = AsyncConnection[Any]

_TABLES = """
    SELECT c.oid, c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
           (SELECT coalesce(array_agg(DISTINCT f.confrelid), '{}') FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f') AS needs
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     GROUP BY c.oid ORDER BY c.relname"""
_COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
_CONSTRAINTS = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype IN ('p', 'u', 'f') ORDER BY contype <> 'p', conname"
_INDEXES = """
    SELECT c.relname, i.indisunique, substring(pg_get_indexdef(c.oid) FROM position(' USING ' IN pg_get_indexdef(c.oid)) + 7)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = %s AND i.indisvalid AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u'))
     ORDER BY c.relname"""
_SEQUENCES = "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = current_schema()::regnamespace ORDER BY relname"


@dataclass(frozen=True)
class Catalogue:
    """What there is to save."""

    tables: tuple[TableDef, ...]
    """In an order in which they can be filled."""
    skipped: tuple[str, ...]
    """Tables of somebody else."""


async def catalogue(connection: Connection) -> Catalogue:
    """Every table of ours and of LightRAG's in the current schema."""
    rows = await (await connection.execute(_TABLES)).fetchall()
    ours = {oid: (name, columns, needs) for oid, name, columns, needs in rows if name in OURS or name.startswith(FOREIGN)}
    skipped = [name for _, name, _, _ in rows if name not in OURS and not name.startswith(FOREIGN)]
    tables = []
    for oid in _in_order({oid: set(needs) & ours.keys() - {oid} for oid, (_, _, needs) in ours.items()}):
        name, columns, _ = ours[oid]
        try:
            foreign = await _foreign(connection, oid) if name.startswith(FOREIGN) else None
            tables.append(TableDef(name=name, columns=tuple(columns), foreign=foreign))
        except ValidationError as error:
            raise BackupPlaceRefused(f"The table {name} has a form that a backup cannot hold yet.") from error
    return Catalogue(tuple(tables), tuple(name for name in skipped if name not in {"alembic_version", "schema_version"}))


async def _foreign(connection: Connection, oid: int) -> ForeignDef:
    columns = await (await connection.execute(_COLUMNS, (oid,))).fetchall()
    constraints = await (await connection.execute(_CONSTRAINTS, (oid,))).fetchall()
    indexes = await (await connection.execute(_INDEXES, (oid,))).fetchall()
    return ForeignDef(
        columns=tuple(ColumnDef(name=n, type=t, not_null=required, default=default) for n, t, required, default in columns),
        constraints=tuple(ConstraintDef(name=n, definition=d) for n, d in constraints),
        indexes=tuple(IndexDef(name=n, unique=unique, definition=d) for n, unique, d in indexes),
    )


async def sequences(connection: Connection) -> tuple[SequenceDef, ...]:
    """Where all sequences stand now, which is at or beyond every number that the snapshot holds: sequences know no snapshots."""
    names = await (await connection.execute(_SEQUENCES)).fetchall()
    found = []
    for (name,) in names:
        last, called = await one(connection, sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(name)))
        found.append(SequenceDef(name=name, last=last, called=called))
    return tuple(found)


async def one(connection: Connection, statement: LiteralString | sql.Composed, values: tuple[object, ...] = ()) -> Any:
    """The only row of a query."""
    return (await (await connection.execute(statement, values)).fetchall())[0]


def make_table(table: str, foreign: ForeignDef) -> sql.Composed:
    """The statement that makes a foreign table, with no constraint, index or trigger yet."""
    columns = [
        sql.SQL(" ").join(
            [
                sql.Identifier(column.name),
                _checked(column.type),
                *([_checked(f"DEFAULT {column.default}")] if column.default is not None else []),
                *([sql.SQL("NOT NULL")] if column.not_null else []),
            ]
        )
        for column in foreign.columns
    ]
    return sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(table), sql.SQL(", ").join(columns))


def finish_table(table: str, foreign: ForeignDef) -> Iterator[sql.Composed]:
    """What a foreign table gets once it is filled: keys and references first, then indexes, then the writer's fence."""
    own = sql.Identifier(table)
    for constraint in foreign.constraints:
        definition = _checked(constraint.definition)
        yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(own, sql.Identifier(constraint.name), definition)
    for index in foreign.indexes:
        kind = sql.SQL("UNIQUE INDEX" if index.unique else "INDEX")
        yield sql.SQL("CREATE {} {} ON {} USING {}").format(kind, sql.Identifier(index.name), own, _checked(index.definition))
    yield sql.SQL(
        "CREATE TRIGGER shield_fence BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH STATEMENT EXECUTE FUNCTION shield_fence()"
    ).format(own)


def _checked(text: str) -> sql.SQL:
    """Text that `structure` has held to its known forms."""
    return sql.SQL(text)  # not a literal, and that is why it was checked


def _in_order(needs: Mapping[int, set[int]]) -> list[int]:
    """Each after all it refers to."""
    done: list[int] = []
    while len(done) < len(needs):
        ready = [oid for oid in needs if oid not in done and needs[oid] <= set(done)]
        if not ready:
            raise BackupPlaceRefused("Tables refer to each other in a circle, which a backup cannot hold.")
        done += ready
    return done
