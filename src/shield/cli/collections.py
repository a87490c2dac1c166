"""`shield kb ...` on the vector index: collections, check, rebuild, reindex, flip, rollback, discard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shield.auth import LOCAL
from shield.cli.common import Json, console, print_json, with_shield
from shield.errors import Exit

if TYPE_CHECKING:
    from shield.service.models import CollectionList, JobView, KnowledgeBaseCheck
    from shield.service.port import Shield

Name = Annotated[str, typer.Argument(help="The knowledge base's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(group: typer.Typer) -> None:
    """Add the commands to `shield kb`."""
    group.command("collections")(collections)
    group.command("check")(check)
    group.command("rebuild")(rebuild)
    group.command("reindex")(reindex)
    group.command("flip")(flip)
    group.command("rollback")(rollback)
    group.command("discard")(discard)


def collections(name: Name, as_json: Json = False) -> int:
    """List the vector collections of a knowledge base, and how a reindex compared."""

    async def work(shield: Shield) -> CollectionList:
        return await shield.collections(LOCAL, name)

    return _show(with_shield(work), as_json=as_json)


def check(name: Name, as_json: Json = False) -> int:
    """Count what the vector index holds against what it should; exit code 20 if something is missing."""

    async def work(shield: Shield) -> KnowledgeBaseCheck:
        return await shield.check_knowledge_base(LOCAL, name)

    result = with_shield(work)
    if as_json:
        print_json(result)
    else:
        from rich.table import Table

        table = Table("model", "dim", "state", "expected", "present", "missing", "other", box=None)
        for item in result.collections:
            numbers = (item.expected, item.present, item.missing, item.other)
            table.add_row(item.model, str(item.dim), item.state, *map(str, numbers))
        console().print(table)
        if not result.ok:
            console().print(f"The live collection lacks points; restore them with `shield kb rebuild {name}`.", markup=False)
    return Exit.OK if result.ok else Exit.PARTIAL


def rebuild(
    name: Annotated[str | None, typer.Argument(help="The knowledge base's name.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All knowledge bases, one after the other, as after a restore.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the index first, for files that are broken; searches find nothing till then.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Restore the vectors of a knowledge base from its stored texts."""
    if (name is None) != every:
        raise typer.BadParameter("name a knowledge base, or give --all")
    from shield.cli.progress import exit_code, follow, report
    from shield.service.models import RebuildRequest

    async def work(shield: Shield) -> list[JobView]:
        names = [base.name for base in (await shield.knowledge_bases(LOCAL)).knowledge_bases] if name is None else [name]
        jobs = []
        for each in names:
            accepted = await shield.rebuild_knowledge_base(LOCAL, each, RebuildRequest(fresh=fresh))
            jobs.append(await follow(shield, accepted, console(stderr=True), label=f"Rebuilding {each}"))
        return jobs

    jobs = with_shield(work)
    if as_json:
        print_json([job.model_dump(mode="json") for job in jobs] if every else jobs[0])
    else:
        for job in jobs:
            report(job, console())
    return next((code for job in jobs if (code := exit_code(job, strict=True))), Exit.OK)


def reindex(
    name: Name,
    model: Annotated[str, typer.Option(help="The other embedding model; SHIELD_EMBEDDING_* or SHIELD_SHADOW_* must name it.")],
    dim: Annotated[int, typer.Option(help="Length of its vectors.")],
    flip: Annotated[bool, typer.Option(help="Use it at once if it compares well.")] = True,
    questions: Annotated[Path | None, typer.Option(help="File of golden questions, one a line.", exists=True, dir_okay=False)] = None,
    min_overlap: Annotated[float | None, typer.Option(help="Least overlap@10 with the old collection for it to be used at once.")] = None,
    as_json: Json = False,
) -> int:
    """Move a knowledge base to another embedding model; it answers all the time. Exit code 20 if it compares badly and waits."""
    from shield.cli.progress import exit_code, follow, report
    from shield.cli.requests import reindex_request

    lines = questions.read_text(encoding="utf-8").splitlines() if questions else []
    request = reindex_request(
        {
            "model": model,
            "dim": dim,
            "flip": flip,
            "min_overlap": min_overlap,
            "questions": [line.strip() for line in lines if line.strip()],
        }
    )

    async def work(shield: Shield) -> tuple[JobView, CollectionList]:
        accepted = await shield.reindex_knowledge_base(LOCAL, name, request)
        job = await follow(shield, accepted, console(stderr=True), label="Reindexing")
        return job, await shield.collections(LOCAL, name)

    job, result = with_shield(work)
    if as_json:
        print_json(job)
    else:
        report(job, console())
        _show(result, as_json=False)
    return exit_code(job, strict=True)


def flip(name: Name, as_json: Json = False) -> int:
    """Answer from the collection that a reindex has made ready."""

    async def work(shield: Shield) -> CollectionList:
        return await shield.flip_knowledge_base(LOCAL, name)

    return _show(with_shield(work), as_json=as_json)


def rollback(name: Name, as_json: Json = False) -> int:
    """Answer from the collection before the last flip again."""

    async def work(shield: Shield) -> CollectionList:
        return await shield.rollback_knowledge_base(LOCAL, name)

    return _show(with_shield(work), as_json=as_json)


def discard(name: Name, yes: Yes = False, as_json: Json = False) -> int:
    """Give up all collections but the live one; a rollback is not possible any more."""
    if not yes:
        typer.confirm(f"Give up all collections of {name} but the live one?", abort=True)

    async def work(shield: Shield) -> CollectionList:
        return await shield.discard_collections(LOCAL, name)

    return _show(with_shield(work), as_json=as_json)


def _show(result: CollectionList, *, as_json: bool) -> int:
    if as_json:
        print_json(result)
        return Exit.OK
    from rich.table import Table

    table = Table("model", "dim", "state", "missing", "found old/new", "overlap@10", "kept until", box=None)
    for item in result.collections:
        found = item.report.get("found_rate")
        rates = f"{found['old']:.2f} / {found['new']:.2f}" if found else ""
        overlap = f"{item.report['overlap_at_10']:.2f}" if found else ""
        until = f"{item.keep_until:%Y-%m-%d %H:%M} UTC" if item.keep_until else ""
        table.add_row(item.model, str(item.dim), item.state, str(item.missing), rates, overlap, until)
    console().print(table)
    return Exit.OK
