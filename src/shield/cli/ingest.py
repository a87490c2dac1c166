"""`shield crawl` and `shield ingest`: bring content in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shield.auth import LOCAL
from shield.cli.common import Base, Json, console, print_json, with_shield

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shield.service.models import JobView
    from shield.service.port import Shield

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end, or return with its id.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 20 if some documents failed.")]
Meta = Annotated[list[str] | None, typer.Option("--meta", "-m", help="key=value stored with each document, to filter by (repeatable).")]
WebhookOption = Annotated[str | None, typer.Option("--webhook", help="Address that gets one signed POST when the job has ended.")]
BudgetOption = Annotated[int | None, typer.Option("--budget", help="Most tokens of language models that the job may spend.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("crawl")(crawl)
    app.command("ingest")(ingest)


def crawl(
    url: Annotated[str, typer.Argument(help="Where to begin.")],
    kb: Base = "default",
    max_pages: Annotated[int, typer.Option(help="Most pages requested.")] = 50,
    max_depth: Annotated[int, typer.Option(help="Most links from the start page.")] = 3,
    domain: Annotated[list[str] | None, typer.Option(help="A host that may be visited (repeatable); default: the start page's.")] = None,
    sitemap: Annotated[
        list[str] | None, typer.Option(help="Begin with a sitemap's pages, too: its address, or auto for the site's own (repeatable).")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Follow only links whose path matches, such as '/docs/**' (repeatable).")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Never request links whose path matches (repeatable).")] = None,
    render: Annotated[
        Literal["http", "browser", "auto"] | None,
        typer.Option(help="Run pages' scripts: of none, of every page, or of those that are empty without; default: auto if possible."),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch every page anew, unchanged or not.")] = False,
    remove_vanished: Annotated[
        bool, typer.Option("--remove-vanished", help="Remove the documents of pages that the site has no more.")
    ] = False,
    meta: Meta = None,
    webhook: WebhookOption = None,
    budget: BudgetOption = None,
    wait: Wait = True,
    strict: Strict = False,
    as_json: Json = False,
) -> int:
    """Crawl a web site into a knowledge base."""
    from shield.cli.requests import ingest_request, pairs

    metadata = pairs(meta, "--meta key=value")
    request = ingest_request(
        kb,
        {
            "type": "crawl",
            "url": url,
            "max_pages": max_pages,
            "max_depth": max_depth,
            "allowed_domains": domain or [],
            "sitemaps": sitemap or [],
            "include": include or [],
            "exclude": exclude or [],
            "render": render,
            "refresh": refresh,
            "remove_vanished": remove_vanished,
            "metadata": metadata,
        },
        webhook=webhook,
        budget=budget,
    )

    async def work(shield: Shield) -> int:
        return await _run(shield, await shield.ingest(LOCAL, request), label=f"Crawling {url}", wait=wait, strict=strict, as_json=as_json)

    return with_shield(work)


def ingest(
    source: Annotated[str, typer.Argument(help="A file, an http(s) address, or - for text on standard input.")],
    kb: Base = "default",
    name: Annotated[str | None, typer.Option("--source", help="What to call it; the same name replaces the document.")] = None,
    title: Annotated[str | None, typer.Option(help="Its title; default: the one found in it.")] = None,
    meta: Meta = None,
    webhook: WebhookOption = None,
    budget: BudgetOption = None,
    wait: Wait = True,
    strict: Strict = False,
    as_json: Json = False,
) -> int:
    """Ingest one document: PDF, DOCX, PPTX, XLSX, HTML, Markdown, text or CSV."""
    from shield.cli.requests import ingest_request, pairs

    spec: dict[str, object] = {"type": "document", "source": name, "title": title, "metadata": pairs(meta, "--meta key=value")}

    async def work(shield: Shield) -> int:
        if source == "-":
            spec["text"] = sys.stdin.read()
        elif source.startswith(("http://", "https://")):
            spec["url"] = source
        else:
            path = Path(source)
            upload = await shield.upload(LOCAL, path.name, None, _blocks(path))
            spec["upload_id"] = str(upload.upload_id)
            spec["source"] = name or f"file:{path.resolve()}"
        request = ingest_request(kb, spec, webhook=webhook, budget=budget)
        return await _run(
            shield, await shield.ingest(LOCAL, request), label=f"Ingesting {source}", wait=wait, strict=strict, as_json=as_json
        )

    if source != "-" and not source.startswith(("http://", "https://")) and not Path(source).is_file():
        raise typer.BadParameter(f"{source} is neither a file nor an http(s) address.")
    return with_shield(work)


async def _run(shield: Shield, job: JobView, *, label: str, wait: bool, strict: bool, as_json: bool) -> int:
    from shield.cli.progress import exit_code, follow, report

    if wait:
        job = await follow(shield, job, console(stderr=True), label=label)
    if as_json:
        print_json(job)
    elif wait:
        report(job, console())
    else:
        console().print(f"Job {job.job_id} accepted. Follow it with: shield jobs watch {job.job_id}")
    return exit_code(job, strict=strict) if wait else 0


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    import asyncio

    with path.open("rb") as file:
        while block := await asyncio.to_thread(file.read, 1 << 20):
            yield block
