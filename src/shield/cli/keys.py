"""`shield keys`: make, list, rotate and revoke API keys.

With SHIELD_URL the server does it, for an administrator's key. In server mode the command works on the database itself, so that the
first key can be made by whoever holds the database's address; embedded, it goes through the owner of the data directory. There is no
default password anywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from shield.auth import LOCAL, Principal
from shield.cli.common import Json, console, print_json, with_shield
from shield.errors import Exit

if TYPE_CHECKING:
    from shield.service.keys import ApiKeys
    from shield.service.models import KeyCreate, KeyCreated, KeyList, KeyRotate, KeyView

T = TypeVar("T")
KeyFiles = Annotated[list[Path] | None, typer.Option(help="A file that holds a key (repeatable).")]
KeyArgument = Annotated[str, typer.Argument(help="The key's id: the eight characters after shk_.")]


class Keys(Protocol):
    """Who can do it: a `Shield`, or the keys in the database."""

    async def keys(self, who: Principal) -> KeyList:
        """All keys."""

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        """Make one."""

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        """End one."""

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        """Replace one."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Manage API keys.")
    group.command("create")(create)
    group.command("list")(list_keys)
    group.command("ensure")(ensure)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group, name="keys")


def create(
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="May do everything, everywhere.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="kb:read, kb:write, crawl, jobs:read (repeatable); default: kb:read jobs:read.")
    ] = None,
    kb: Annotated[
        list[str] | None, typer.Option("--kb", "-k", help="A knowledge base it may use (repeatable); default: `default`.")
    ] = None,
    all_kbs: Annotated[bool, typer.Option("--all-kbs", help="It may use all knowledge bases, present and future.")] = False,
    principal: Annotated[
        str | None, typer.Option(help="Who its holder is; keys of one principal share jobs. Default: nobody else.")
    ] = None,
    days: Annotated[int | None, typer.Option(help="After how many days it ends; default: never.")] = None,
    as_json: Json = False,
) -> int:
    """Make a key. Its secret is printed this once."""
    from shield.cli.requests import key_request

    given = {"name": name, "principal": principal, "expires_in_days": days}
    rights = {"scopes": ["admin"] if admin else scope, "knowledge_bases": kb}
    request = key_request({**given, **{field: value for field, value in rights.items() if value}}, everywhere=all_kbs or admin)

    async def work(keys: Keys) -> KeyCreated:
        return await keys.create_key(LOCAL, request)

    return _shown_once(with_keys(work), as_json=as_json)


def ensure(
    admin: KeyFiles = None,
    member: KeyFiles = None,
    reader: KeyFiles = None,
    kb: Annotated[list[str] | None, typer.Option("--kb", "-k", help="Knowledge bases of members and readers; default: `default`.")] = None,
) -> int:
    """Let keys in that were made elsewhere, one a file, named like it: administrators', members' (read, write, crawl), readers'.

    A key that is known stays as it is, even if it was revoked. Server mode only: the command works on the database itself.
    """
    from shield.cli.requests import key_request

    roles = ((admin, ["admin"]), (member, ["kb:read", "kb:write", "crawl", "jobs:read"]), (reader, ["kb:read", "jobs:read"]))
    wanted = [
        (_read_key(path), key_request({"name": path.name, "scopes": scopes, **({"knowledge_bases": kb} if kb else {})}, everywhere=False))
        for paths, scopes in roles
        for path in paths or ()
    ]

    async def work(keys: ApiKeys) -> list[bool]:
        return [await keys.adopt_key(LOCAL, key, request) for key, request in wanted]

    for (_, request), new in zip(wanted, _in_database(work), strict=True):
        typer.echo(f"{request.name}: {'added' if new else 'known'}")
    return Exit.OK


def _read_key(path: Path) -> str:
    from shield.errors import ConfigInvalid

    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"The key file {path} cannot be read.") from error


def list_keys(as_json: Json = False) -> int:
    """List the keys, newest first, without their secrets."""

    async def work(keys: Keys) -> KeyList:
        return await keys.keys(LOCAL)

    result = with_keys(work)
    if as_json:
        print_json(result)
        return Exit.OK
    from rich.table import Table

    table = Table("id", "state", "principal", "scopes", "knowledge bases", "last used", "name", box=None)
    for key in result.keys:
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
        table.add_row(key.id, _state(key), key.principal, " ".join(key.scopes), _bases(key), used, key.name)
    console().print(table)
    return Exit.OK


def rotate(
    key_id: KeyArgument,
    grace: Annotated[int | None, typer.Option(help="Seconds the old key goes on; default: SHIELD_AUTH_KEY_GRACE.")] = None,
    as_json: Json = False,
) -> int:
    """Make a successor with the same rights; the old key ends after a grace period."""
    from shield.cli.requests import rotation_request

    request = rotation_request(grace)

    async def work(keys: Keys) -> KeyCreated:
        return await keys.rotate_key(LOCAL, key_id, request)

    return _shown_once(with_keys(work), as_json=as_json)


def revoke(key_id: KeyArgument, as_json: Json = False) -> int:
    """End a key at once."""

    async def work(keys: Keys) -> KeyView:
        return await keys.revoke_key(LOCAL, key_id)

    key = with_keys(work)
    print_json(key) if as_json else console().print(f"Revoked {key.id} of {key.principal}.")
    return Exit.OK


def with_keys(work: Callable[[Keys], Awaitable[T]]) -> T:
    """Run `work` where the keys are: at SHIELD_URL, in the fleet's database, or with the data directory's owner."""
    from shield.settings import load

    settings = load()
    if settings.mode == "server" and settings.url is None:
        return _in_database(work)
    return with_shield(work)


def _in_database(work: Callable[[ApiKeys], Awaitable[T]]) -> T:
    import asyncio

    from shield.app.fleet import server_dsn
    from shield.database.engine import create_engine
    from shield.service.keys import ApiKeys
    from shield.settings import load

    settings = load()
    dsn = server_dsn(settings)

    async def run() -> T:
        engine = create_engine(dsn, settings.postgres)
        try:
            return await work(ApiKeys(engine, settings.auth))
        finally:
            await engine.dispose()

    return asyncio.run(run())


def _shown_once(key: KeyCreated, *, as_json: bool) -> int:
    if as_json:
        print_json(key)
        return Exit.OK
    typer.echo(key.key)  # alone on standard output, so that a script can keep it
    rights = f"{' '.join(key.scopes)}; knowledge bases: {_bases(key)}"
    ends = f", until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    console(stderr=True).print(f"Key {key.id} of {key.principal} ({rights}{ends}). It is shown this once.", markup=False)
    return Exit.OK


def _bases(key: KeyView) -> str:
    return "all" if key.knowledge_bases is None else " ".join(key.knowledge_bases)


def _state(key: KeyView) -> str:
    if key.revoked_at:
        return "revoked"
    if not key.valid:
        return "expired"
    return f"until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "valid"
