"""`shield db`: look at the database, upgrade it, save it, bring it back."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shield.cli.common import Json, console, print_json
from shield.errors import Exit

if TYPE_CHECKING:
    from shield.settings import Settings

Force = Annotated[bool, typer.Option("--force", help="Replace everything that the database holds.")]
CheckOnly = Annotated[bool, typer.Option("--check", help="Only read the backup to its end; no database is touched.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Operate the database.")
    group.command("status")(status)
    group.command("upgrade")(upgrade)
    group.command("backup")(backup)
    group.command("restore")(restore)
    app.add_typer(group, name="db")


def status(as_json: Json = False) -> int:
    """Say what the database is and whether this version can serve on it."""
    from shield.app import database

    found = asyncio.run(database.status(_settings()))
    if as_json:
        print_json({**asdict(found), "ready": found.ready})
    else:
        out = console()
        out.print(f"PostgreSQL {found.postgres}, pgvector {found.pgvector or 'not installed'}, {_size(found.bytes)}")
        out.print(f"Schema {found.schema_version or 'empty'}; Shield {found.app_version} knows {found.newest}")
        if found.min_app_version is not None:
            out.print(f"Needs Shield {found.min_app_version} or later")
        if found.problem:
            out.print(found.problem)
        out.print(f"Pending: {', '.join(found.pending)}; run `shield db upgrade`" if found.pending else "Nothing is pending")
    return Exit.OK if found.ready else Exit.REFUSED


def upgrade(
    wait: Annotated[bool, typer.Option("--wait", help="Wait SHIELD_POSTGRES_SCHEMA_WAIT for a database that does not answer.")] = False,
    backups: Annotated[
        str | None, typer.Option("--backup", help="Save a database that will be changed first: a directory, or s3://bucket/prefix.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Bring the database to this version's schema; says from where to where."""
    from shield.app import database

    prepared = asyncio.run(database.upgrade_database(_settings(), wait=wait, backups=backups))
    done = prepared.upgraded
    if as_json:
        print_json({**asdict(done), **({"backup": prepared.backup} if backups is not None else {})})
        return Exit.OK
    if prepared.backup:
        console().print(f"Saved to {prepared.backup}.", markup=False)
    if done.before == done.after:
        console().print(f"The schema is {done.after} already.")
    else:
        console().print(f"Upgraded from {done.before or 'empty'} to {done.after}.")
    return Exit.OK


def backup(
    target: Annotated[str, typer.Argument(help="A new file, or s3://bucket/key.")],
    as_json: Json = False,
) -> int:
    """Save everything that the database holds, as it is at this moment; everybody may go on working."""
    from shield.app import database

    saved = asyncio.run(database.save(_settings(), target))
    if as_json:
        print_json(asdict(saved))
        return Exit.OK
    out = console()
    out.print(f"Saved {saved.rows} rows of {saved.tables} tables, schema {saved.schema_version}, {_size(saved.bytes)}, to {target}")
    if saved.skipped:
        out.print(f"Left out, because they are not Shield's: {', '.join(saved.skipped)}")
    if saved.uploads_gone:
        out.print(f"{saved.uploads_gone} uploads were used up while the backup began and are not in it.")
    return Exit.OK


def restore(
    source: Annotated[str, typer.Argument(help="A backup: a file, or s3://bucket/key.")],
    force: Force = False,
    check: CheckOnly = False,
    as_json: Json = False,
) -> int:
    """Fill an empty database from a backup, all of it or nothing."""
    from shield.app import database

    settings = _settings()
    if check:
        return _check(settings, source, as_json=as_json)
    done = asyncio.run(database.bring_back(settings, source, force=force))
    if as_json:
        print_json({**asdict(done), "next": _NEXT})
        return Exit.OK
    out = console()
    out.print(f"Restored {done.rows} rows of {done.tables} tables as they were on {done.created:%Y-%m-%d at %H:%M:%S UTC}.")
    if done.from_schema != done.to_schema:
        out.print(f"Upgraded from schema {done.from_schema} to {done.to_schema}.")
    out.print(f"The vectors are not in a backup. Next: {_NEXT}", markup=False)
    return Exit.OK


_NEXT = "shield kb rebuild --all"


def _check(settings: Settings, source: str, *, as_json: bool) -> int:
    from shield.database.backup import check as read_through
    from shield.database.backup import place_of

    header = asyncio.run(read_through(place_of(source, settings.backup).read()))
    facts: dict[str, Any] = {
        "schema_version": header.schema_version,
        "app_version": header.app_version,
        "created": header.created,
        "postgres": header.postgres,
        "tables": len(header.tables),
    }
    if as_json:
        print_json(facts)
    else:
        made = f"made by Shield {header.app_version} on {header.created:%Y-%m-%d at %H:%M:%S UTC}"
        console().print(f"The backup is whole: schema {header.schema_version}, {len(header.tables)} tables, {made}.")
    return Exit.OK


def _settings() -> Settings:
    from shield.settings import load
    from shield.telemetry.logs import configure

    settings = load()
    configure("console", "warning" if settings.log_level == "info" else settings.log_level)
    return settings


def _size(count: int) -> str:
    from pydantic import ByteSize

    return ByteSize(count).human_readable()
