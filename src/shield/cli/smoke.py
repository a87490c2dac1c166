"""`shield smoke`: does an installation work, seen from outside?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from shield.cli.common import token_of
from shield.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("smoke")(smoke)


def smoke(
    url: Annotated[str, typer.Argument(help="The MCP endpoint, such as http://127.0.0.1:8000/mcp.")],
    kb: Annotated[str, typer.Option("--kb", "-k", help="Knowledge base; what is stored there is deleted at the end.")] = "default",
    within: Annotated[float, typer.Option(min=1, help="Seconds that it may take.")] = 120,
    key_file: Annotated[Path | None, typer.Option(help="File with an API key or token; default: SHIELD_API_KEY.")] = None,
) -> int:
    """Ingest a text over MCP, find it again, delete it. Exits with 75 if that does not work."""
    from shield.app.smoke import Smoke, SmokeFailed, mcp_tools

    began = time.monotonic()

    def say(text: str) -> None:
        typer.echo(f"{time.monotonic() - began:6.1f} s  {text}")

    try:
        asyncio.run(Smoke(mcp_tools(url, token_of(key_file)), say, kb).run(within))
    except SmokeFailed as error:
        say(f"FAILED: {error}")
        return Exit.TRANSIENT
    say("it works")
    return Exit.OK
