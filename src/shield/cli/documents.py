"""`shield docs`: list, show, delete documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from shield.auth import LOCAL
from shield.cli.common import Base, Json, console, print_json, with_shield
from shield.errors import Exit

if TYPE_CHECKING:
    from shield.service.models import DocumentList, DocumentText, JobView
    from shield.service.port import Shield

DocumentArgument = Annotated[UUID, typer.Argument(help="The document's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="List, read and delete documents.")
    group.command("list")(list_documents)
    group.command("show")(show)
    group.command("delete")(delete)
    app.add_typer(group, name="docs")


def list_documents(
    kb: Base = "default",
    prefix: Annotated[str | None, typer.Option(help="Only sources that begin so.")] = None,
    limit: Annotated[int, typer.Option(help="Most documents.")] = 50,
    as_json: Json = False,
) -> int:
    """List documents in order of source."""

    async def work(shield: Shield) -> DocumentList:
        return await shield.documents(LOCAL, knowledge_base=kb, source_prefix=prefix, limit=limit)

    result = with_shield(work)
    if as_json:
        print_json(result)
        return Exit.OK
    from rich.table import Table

    table = Table("document", "source", "title", "chunks", box=None)
    for document in result.documents:
        table.add_row(str(document.document_id), document.source, document.title, str(document.chunks))
    console().print(table)
    console().print(f"{len(result.documents)} of {result.total}")
    return Exit.OK


def show(document_id: DocumentArgument, kb: Base = "default", as_json: Json = False) -> int:
    """Print a document's text."""

    async def work(shield: Shield) -> DocumentText:
        document = await shield.document(LOCAL, document_id, knowledge_base=kb, max_tokens=16_000)
        while document.next_offset is not None:
            more = await shield.document(LOCAL, document_id, knowledge_base=kb, offset=document.next_offset, max_tokens=16_000)
            document = document.model_copy(update={"text": document.text + more.text, "next_offset": more.next_offset})
        return document

    document = with_shield(work)
    print_json(document) if as_json else console().print(document.text, markup=False)
    return Exit.OK


def delete(
    document_id: DocumentArgument,
    kb: Base = "default",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> int:
    """Delete a document, with proof that nothing of it is left."""
    if not yes:
        typer.confirm(f"Delete {document_id} from {kb} for good?", abort=True)
    from shield.cli.progress import exit_code, follow, report

    async def work(shield: Shield) -> JobView:
        job = await shield.delete_document(LOCAL, document_id, knowledge_base=kb)
        return await follow(shield, job, console(stderr=True), label="Deleting")

    job = with_shield(work)
    if as_json:
        print_json(job)
    else:
        report(job, console())
        if job.proof:
            console().print(f"  proof: {job.proof}", markup=False)
    return exit_code(job, strict=False)
