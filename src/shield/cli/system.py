"""`shield doctor` and `shield config`: what is missing, and what is in effect."""

from __future__ import annotations

import typer

from shield.cli.common import Json, console, print_json
from shield.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("doctor")(doctor)
    app.command("config")(config)


def doctor(as_json: Json = False) -> int:
    """Check this machine and installation; say what is missing and how to get it."""
    from dataclasses import asdict

    from shield.app.doctor import examine
    from shield.settings import load

    findings = examine(load())
    broken = any(finding.state == "broken" for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        marks = {"ok": "[green]ok[/green]     ", "optional": "[yellow]absent[/yellow] ", "broken": "[red]broken[/red] "}
        for finding in findings:
            console().print(f"{marks[finding.state]} {finding.what}: {finding.detail}", markup=True)
            if finding.remedy:
                console().print(f"         {finding.remedy}", markup=False)
    return Exit.REFUSED if broken else Exit.OK


def config(as_json: Json = False) -> int:
    """Print the effective settings, secrets masked, each with its variable and meaning."""
    from shield.settings import describe, load

    rows = describe(load())
    if as_json:
        print_json(
            [{"variable": row.variable, "value": row.value, "default": row.is_default, "description": row.description} for row in rows]
        )
        return Exit.OK
    from rich.table import Table

    table = Table("variable", "value", "meaning", box=None)
    for row in rows:
        table.add_row(row.variable, row.value if row.is_default else f"[bold]{row.value}[/bold]", row.description)
    console().print(table)
    return Exit.OK
