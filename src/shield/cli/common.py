"""What the commands share: options, the way to a server, and printing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from shield.errors import ConfigInvalid

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from shield.service.port import Shield

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, the same that REST and MCP answer.")]
Base = Annotated[str, typer.Option("--kb", "-k", help="Knowledge base.", envvar="SHIELD_KB")]


def with_shield(work: Callable[[Shield], Awaitable[T]]) -> T:
    """Run `work` against the data directory's owner, or as the owner for this command's life."""
    from shield.app.connect import connect
    from shield.settings import load
    from shield.telemetry.logs import configure

    settings = load()
    configure("console", "warning" if settings.log_level == "info" else settings.log_level)

    async def run() -> T:
        async with connect(settings) as shield:
            return await work(shield)

    return asyncio.run(run())


def token_of(key_file: Path | None) -> str | None:
    """The credential in a file; without one, the configured one.

    Raises:
        ConfigInvalid: the file cannot be read.
    """
    from shield.settings import load

    if key_file is None:
        key = load().api.key
        return key.get_secret_value() if key else None
    try:
        return key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"The key file {key_file} cannot be read.") from error


def print_json(model: BaseModel | dict[str, Any] | list[Any]) -> None:
    """One JSON document on standard output."""
    import json

    from pydantic import BaseModel

    if isinstance(model, BaseModel):
        typer.echo(model.model_dump_json(indent=2))
    else:
        typer.echo(json.dumps(model, indent=2, default=str))


def console(*, stderr: bool = False) -> Console:
    """A terminal that drops its colours when it is none."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)
