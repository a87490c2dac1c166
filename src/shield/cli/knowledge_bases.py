"""`shield kb`: list, create, delete and fingerprint knowledge bases; their vector index is in `collections.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shield.auth import LOCAL
from shield.cli import collections
from shield.cli.common import Json, console, print_json, with_shield
from shield.errors import Exit

if TYPE_CHECKING:
    from shield.service.models import JobView, KnowledgeBaseHash, KnowledgeBaseList, KnowledgeBaseView
    from shield.service.port import Shield

Name = Annotated[str, typer.Argument(help="The knowledge base's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Manage knowledge bases.")
    group.command("list")(list_bases)
    group.command("create")(create)
    group.command("delete")(delete)
    group.command("hash")(fingerprint)
    collections.register(group)
    app.add_typer(group, name="kb")


def list_bases(as_json: Json = False) -> int:
    """List knowledge bases with their numbers."""

    async def work(shield: Shield) -> KnowledgeBaseList:
        return await shield.knowledge_bases(LOCAL)

    result = with_shield(work)
    if as_json:
        print_json(result)
        return Exit.OK
    from rich.table import Table

    table = Table("name", "documents", "chunks", "graph", "description", box=None)
    for base in result.knowledge_bases:
        table.add_row(base.name, str(base.documents), str(base.chunks), "yes" if base.graph else "no", base.description)
    console().print(table)
    return Exit.OK


def create(
    name: Name,
    description: Annotated[str, typer.Option(help="What it is about.")] = "",
    graph: Annotated[bool, typer.Option(help="Keep a graph of entities and relations.")] = True,
    as_json: Json = False,
) -> int:
    """Create a knowledge base."""
    from shield.cli.requests import base_request

    request = base_request(name, description, graph)

    async def work(shield: Shield) -> KnowledgeBaseView:
        return await shield.create_knowledge_base(LOCAL, request)

    base = with_shield(work)
    print_json(base) if as_json else console().print(f"Created {base.name}.")
    return Exit.OK


def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, as_json: Json = False) -> int:
    """Delete a knowledge base with all its documents, with proof."""
    if not yes:
        typer.confirm(f"Delete {name} with all its documents for good?", abort=True)
    from shield.cli.progress import exit_code, follow, report

    async def work(shield: Shield) -> JobView:
        return await follow(shield, await shield.delete_knowledge_base(LOCAL, name), console(stderr=True), label="Deleting")

    job = with_shield(work)
    print_json(job) if as_json else report(job, console())
    return exit_code(job, strict=False)


def fingerprint(name: Annotated[str, typer.Argument(help="The knowledge base's name.")] = "default", as_json: Json = False) -> int:
    """Print the fingerprint of all that readers can see; equal content gives equal hashes on any machine."""

    async def work(shield: Shield) -> KnowledgeBaseHash:
        return await shield.knowledge_base_hash(LOCAL, name)

    result = with_shield(work)
    print_json(result) if as_json else console().print(result.hash)
    return Exit.OK
