"""`shield find` and `shield ask`: get knowledge out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shield.auth import LOCAL
from shield.cli.common import Base, Json, console, print_json, with_shield
from shield.errors import Exit

if TYPE_CHECKING:
    from rich.console import Console

    from shield.service.models import Answer, FindResult
    from shield.service.port import Shield

Filters = Annotated[
    list[str] | None, typer.Option("--filter", "-f", help="field=value: source, kind, mime, host or metadata.<key> (repeatable).")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("find")(find)
    app.command("ask")(ask)


def find(
    query: Annotated[str, typer.Argument(help="Words or a sentence.")],
    kb: Base = "default",
    limit: Annotated[int, typer.Option(help="Most passages.")] = 5,
    filters: Filters = None,
    as_json: Json = False,
) -> int:
    """Search passages."""
    from shield.cli.requests import find_request

    request = find_request(query, kb, limit, filters)

    async def work(shield: Shield) -> FindResult:
        return await shield.find(LOCAL, request)

    result = with_shield(work)
    if as_json:
        print_json(result)
        return Exit.OK
    out = console()
    if not result.found:
        out.print("Nothing stored speaks to this.")
    for number, passage in enumerate(result.results, 1):
        place = " > ".join(passage.heading_path) + (f", page {passage.page}" if passage.page else "")
        out.print(f"[bold]{number}.[/bold] {passage.source}" + (f"  ({place})" if place else ""), markup=True)
        out.print(f"   {passage.text}\n", markup=False)
    return Exit.OK


def ask(
    question: Annotated[str, typer.Argument(help="A question.")],
    kb: Base = "default",
    mode: Annotated[str, typer.Option(help="auto, naive, local, global, hybrid or mix.")] = "auto",
    filters: Filters = None,
    as_json: Json = False,
) -> int:
    """Ask a question; the answer cites its sources."""
    from shield.cli.requests import query_request

    request = query_request(question, kb, mode, filters)

    async def work(shield: Shield) -> Answer:
        return await shield.query(LOCAL, request)

    answer = with_shield(work)
    if as_json:
        print_json(answer)
    else:
        show_answer(answer, console())
    return Exit.OK


def show_answer(answer: Answer, out: Console) -> None:
    """An answer with its numbered citations."""
    if not answer.found:
        out.print("Nothing stored speaks to this question.")
        return
    out.print(answer.answer, markup=False)
    out.print()
    for citation in answer.citations:
        place = " > ".join(citation.heading_path) + (f", page {citation.page}" if citation.page else "")
        out.print(
            f"  [{citation.number}] {citation.source}"
            + (f"  ({place})" if place else "")
            + f"  characters {citation.start}-{citation.end}",
            markup=False,
        )
    if answer.degraded:
        out.print(f"  (degraded: {answer.degraded})", markup=False)
