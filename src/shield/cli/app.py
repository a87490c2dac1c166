"""The commands' tree, and what every failure looks like at the prompt."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from shield import __version__
from shield.errors import Exit, InternalError, ShieldError

app = typer.Typer(
    name="shield",
    help="Web sites and documents to cited answers over MCP, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"shield {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _show_version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code and never raises."""
    from shield.cli import database, documents, ingest, jobs, keys, knowledge_bases, query, rollout, serve, smoke, system

    for module in (serve, ingest, query, jobs, documents, knowledge_bases, keys, database, smoke, rollout, system):
        module.register(app)
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="shield", standalone_mode=False)
    except ShieldError as error:
        return fail(error, as_json="--json" in arguments)
    except typer.Abort:
        return Exit.INTERRUPTED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
        return Exit.OK
    except Exception as error:  # the process's boundary: a bug is reported, not dumped
        if hasattr(error, "format_message"):  # a usage error of click
            print(f"shield: {error.format_message()}", file=sys.stderr)
            print("Try 'shield --help', or 'shield COMMAND --help'.", file=sys.stderr)
            return Exit.USAGE
        if os.environ.get("SHIELD_LOG_LEVEL") == "debug":
            raise
        return fail(
            InternalError(f"{type(error).__name__}: run again with SHIELD_LOG_LEVEL=debug to see where."), as_json="--json" in arguments
        )
    return int(result) if isinstance(result, int) else Exit.OK


def fail(error: ShieldError, *, as_json: bool) -> int:
    """Print an error for a person or a program; returns its exit code."""
    if as_json:
        print(json.dumps({"error": error.public()}))
    else:
        print(f"shield: {error.message} [{error.code}]", file=sys.stderr)
        if error.advice:
            print(f"  {error.advice}", file=sys.stderr)
    return error.exit_code
