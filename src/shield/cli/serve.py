"""The commands that serve: `up` (everything in one process), `api`, `mcp`, `worker` (the processes of a fleet), and `probe` that watches them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shield.cli.common import console
from shield.errors import Exit

if TYPE_CHECKING:
    import asyncio

    from rich.console import Console

    from shield.app.embedded import EmbeddedApp
    from shield.app.fleet import FleetProcess
    from shield.service.models import JobView
    from shield.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("mcp")(mcp)
    app.command("api")(api)
    app.command("worker")(worker)
    app.command("run-job")(run_job)
    app.command("probe")(probe)


def up(
    samples: Annotated[bool, typer.Option(help="On an empty data directory, build and question the sample knowledge base.")] = True,
    once: Annotated[bool, typer.Option("--once", help="Stop after the first answer (for tests).", hidden=True)] = False,
) -> int:
    """Start everything in one process: MCP, REST, metrics and a worker, on an embedded PostgreSQL."""
    import asyncio

    from shield.settings import load
    from shield.telemetry.export import start_export
    from shield.telemetry.logs import configure

    settings = load()
    told = "SHIELD_LOG_LEVEL" in os.environ or not sys.stderr.isatty()
    configure(settings.log_format, settings.log_level if told else "warning")  # at a terminal the progress says it all
    flush = start_export(settings, "up")
    try:
        return asyncio.run(_up(settings, samples=samples, once=once))
    finally:
        flush()


def mcp(
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak MCP over standard input and output, sharing the data directory.")] = False,
) -> int:
    """Serve MCP: over HTTP for an orchestrator (SHIELD_ORCHESTRATOR_URL), or over stdio."""
    import asyncio

    from shield.settings import load
    from shield.telemetry.logs import configure

    settings = load()
    if not stdio:
        from shield.app.fleet import McpProcess

        configure(settings.log_format, settings.log_level)
        return _run(McpProcess, settings)
    from shield.app.stdio import serve_stdio

    configure(settings.log_format, "warning" if settings.log_level == "info" else settings.log_level)
    asyncio.run(serve_stdio(settings))
    return Exit.OK


def api() -> int:
    """Run an orchestrator of a fleet: REST, job intake, queries, events (server mode)."""
    from shield.app.fleet import ApiProcess
    from shield.settings import load
    from shield.telemetry.logs import configure

    settings = load()
    configure(settings.log_format, settings.log_level)
    return _run(ApiProcess, settings)


def worker() -> int:
    """Run a worker of a fleet: jobs and graph steps; SIGTERM hands running jobs back (server mode)."""
    from shield.app.fleet import WorkerProcess
    from shield.settings import load
    from shield.telemetry.logs import configure

    settings = load()
    configure(settings.log_format, settings.log_level)
    return _run(WorkerProcess, settings)


def run_job(
    spec: Annotated[
        Path, typer.Option("--spec", help="JSON file: uid, knowledge_base, spec, and optionally principal, priority, budget, strict.")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 20 if some documents failed.")] = False,
) -> int:
    """Run one job to its end in this process (a pod of its own); the exit code says how it ended (docs/EXIT_CODES.md)."""
    import asyncio
    import signal

    signal.signal(signal.SIGTERM, _leave)  # the first process of a container is deaf to signals that it does not ask for

    from shield.app.run_job import read_order
    from shield.app.run_job import run_job as run
    from shield.settings import load
    from shield.telemetry.export import start_export
    from shield.telemetry.logs import configure

    settings = load()
    configure(settings.log_format, settings.log_level)
    order = read_order(spec)

    async def until_stopped() -> int:
        return await run(settings, order, _stop_on_signals(), strict=strict)

    flush = start_export(settings, "run-job")
    try:
        return asyncio.run(until_stopped())
    finally:
        flush()


def probe(
    once: Annotated[bool, typer.Option("--once", help="Ask once, print what came of it, and exit with 75 unless all is well.")] = False,
) -> int:
    """Call a tool over MCP every SHIELD_PROBE_INTERVAL, and show in metrics whether that works (SHIELD_PROBE_URL)."""
    import asyncio

    from shield.app.probe import Probe, ProbeProcess
    from shield.settings import load
    from shield.telemetry.logs import configure

    settings = load()
    configure(settings.log_format, settings.log_level)
    if not once:
        return _run(ProbeProcess, settings)
    one = Probe(settings)
    met = asyncio.run(one.ask())
    typer.echo(f"{one.address}: {' '.join(filter(None, (met.result, met.detail)))} after {met.seconds:.2f} s")
    return Exit.OK if met.result == "ok" else Exit.TRANSIENT


def _leave(_number: int, _frame: object) -> None:
    """End before there is anything to hand back."""
    raise SystemExit(int(Exit.DRAINED))


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _run(kind: type[FleetProcess], settings: Settings) -> int:
    """Run one process of a fleet until it is told to stop, or a part of it dies."""
    import asyncio

    from shield.telemetry.export import start_export

    process = kind(settings)

    async def run() -> None:
        stop = _stop_on_signals()
        async with process:
            typer.echo(" ".join(filter(None, (process.addresses.url, process.addresses.metrics_url))))
            stopped, failed = asyncio.create_task(stop.wait()), asyncio.create_task(process.failed())
            await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            failed.cancel()
            stopped.cancel()

    flush = start_export(settings, kind.role)
    try:
        asyncio.run(run())
    finally:
        flush()
    return Exit.OK


async def _up(settings: Settings, *, samples: bool, once: bool) -> int:
    import asyncio
    import time

    from shield.app.embedded import EmbeddedApp
    from shield.app.owner import Ownership, own_or_find
    from shield.auth.binding import check_binding
    from shield.database.embedded import prepare
    from shield.errors import DataDirectoryBusy

    began = time.monotonic()
    check_binding(settings)
    await asyncio.to_thread(prepare, settings.data_dir)
    found = await asyncio.to_thread(own_or_find, settings.data_dir)
    if not isinstance(found, Ownership):
        raise DataDirectoryBusy(f"A Shield server (process {found.pid}) already serves this data directory at {found.url}.")
    out = console()
    stop = _stop_on_signals()
    async with EmbeddedApp(settings, found) as app:
        work = asyncio.create_task(_welcome(app, out, samples=samples, began=began))
        stopped = asyncio.create_task(stop.wait())
        failed = asyncio.create_task(app.failed())
        done, _ = await asyncio.wait({work, stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            work.result()
            if not once:
                await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        if not once:
            out.print("Stopping ...")
        if failed.done():
            failed.result()
        failed.cancel()
        stopped.cancel()
    return Exit.OK


async def _welcome(app: EmbeddedApp, out: Console, *, samples: bool, began: float) -> None:
    """Build the samples if wanted, ask the first question, and say where everything is."""
    import time

    from shield.app import samples as sample_set
    from shield.cli.query import show_answer
    from shield.service.models import Answer

    out.print(f"Shield serves at {app.info.url} after {time.monotonic() - began:.1f} s")
    folder = sample_set.directory()
    if samples and folder is not None:
        jobs = await sample_set.submit(app.shield, app.info.url, folder)
        if jobs:
            out.print(f"Building the knowledge base {sample_set.BASE} from {folder.name}/ ...")
        await _follow_all(app, jobs or await sample_set.unfinished(app.shield), out)
        if jobs:
            out.print(f"\n[bold]{sample_set.QUESTION}[/bold]")
            answer = Answer.model_validate(await sample_set.ask(f"{app.info.url}/mcp", sample_set.QUESTION, app.token()))
            show_answer(answer, out)
            out.print(f"\nanswered with {len(answer.citations)} citations in {time.monotonic() - began:.0f} s")
    out.print(_GUIDE.format(url=app.info.url, metrics=app.info.metrics_url, shield=_program()), markup=False)


def _program() -> str:
    """How to call this program from where we are."""
    called = Path(sys.argv[0]).absolute()
    return str(called.relative_to(Path.cwd())) if called.is_relative_to(Path.cwd()) and called.name == "shield" else "shield"


async def _follow_all(app: EmbeddedApp, jobs: list[tuple[str, JobView]], out: Console) -> None:
    import asyncio

    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    from shield.app.samples import SAMPLES
    from shield.cli.progress import watch

    if not jobs:
        return
    columns = (SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=10), TextColumn("{task.fields[numbers]}"))
    with Progress(*columns, console=out) as bar:
        async with asyncio.TaskGroup() as tasks:
            for label, job in jobs:
                task = bar.add_task(label, total=100, numbers="")
                tasks.create_task(watch(app.shield, job, bar, task, who=SAMPLES))


_GUIDE = """
MCP      {url}/mcp
REST     {url}/docs
metrics  {metrics}

Client configuration:
  {{ "mcpServers": {{ "shield": {{ "type": "http", "url": "{url}/mcp" }} }} }}

Three things to try:
  {shield} ask "Which limits has a page?" --kb shield-docs
  {shield} crawl https://example.com --max-pages 5
  {shield} find "egress guard" --kb shield-docs --json

Ctrl-C stops; a running job goes on at the next start.
"""
