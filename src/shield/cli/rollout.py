"""`shield rollout`: give a new MCP server its share of traffic by and by, and take it back by itself when it is worse."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shield.cli.common import token_of
from shield.errors import ConfigInvalid, Exit

if TYPE_CHECKING:
    from shield.rollout.helm import Helm
    from shield.rollout.journal import Journal
    from shield.rollout.steps import End, Plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rollout")(rollout)


def rollout(
    release: Annotated[str, typer.Argument(help="The Helm release.")],
    chart: Annotated[str, typer.Option(help="Its chart: a directory, an archive, or oci://…")],
    prometheus: Annotated[str, typer.Option(help="Prometheus, such as http://127.0.0.1:9090.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The release's namespace.")] = "default",
    tag: Annotated[str, typer.Option(help="Tag of the canary's image.")] = "",
    digest: Annotated[str, typer.Option(help="Its digest, which wins over the tag.")] = "",
    step: Annotated[list[int] | None, typer.Option(min=1, max=100, help="Per cent of traffic (repeatable); default: 10 50 100.")] = None,
    interval: Annotated[float, typer.Option(min=5, help="Seconds between two verdicts.")] = 30,
    hold: Annotated[float, typer.Option(min=0, help="Seconds of good verdicts that a step takes.")] = 120,
    patience: Annotated[float, typer.Option(min=1, help="Seconds after which a step that was not judged good is taken back.")] = 1800,
    min_calls: Annotated[int, typer.Option(min=1, help="Calls of the canary in a minute, below which nothing is concluded.")] = 20,
    golden: Annotated[
        Path | None, typer.Option(help="JSON list of {query, source, knowledge_base}: asked of both at each verdict.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The MCP endpoint at the gateway, for golden questions.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="File with an API key for it.")] = None,
    promote: Annotated[bool, typer.Option(help="At the end, give the whole release the canary's image.")] = True,
    journal: Annotated[Path | None, typer.Option(help="File to which every decision is added as a line of JSON.")] = Path("rollout.jsonl"),
    helm: Annotated[str, typer.Option(help="The Helm program.")] = "helm",
    helm_option: Annotated[list[str] | None, typer.Option(help="More for every Helm command, as --kube-context=x (repeatable).")] = None,
) -> int:
    """Move traffic to a new MCP server step by step, judged against the stable one; take it back when it is worse.

    Exits with 0 when it is promoted (or keeps its last share), with 13 when it was taken back.
    """
    from shield.rollout.helm import Helm
    from shield.rollout.journal import Journal
    from shield.rollout.judge import Limits
    from shield.rollout.steps import End, Plan

    if golden is not None and url is None:
        raise ConfigInvalid("Golden questions need --url, the MCP endpoint at the gateway.")
    plan = Plan(
        image={name: value for name, value in (("tag", tag), ("digest", digest)) if value},
        steps=step or (10, 50, 100),
        interval=interval,
        hold=hold,
        patience=patience,
        promote=promote,
        limits=Limits(min_calls=min_calls),
    )
    if list(plan.steps) != sorted(set(plan.steps)):
        raise ConfigInvalid("Steps must grow.")
    program = Helm(release, namespace, chart, helm, tuple(helm_option or ()))
    end = asyncio.run(_run(program, plan, prometheus, Journal(typer.echo, journal), golden, url, key_file))
    return Exit.ALL_FAILED if end is End.ROLLED_BACK else Exit.OK


async def _run(
    helm: Helm, plan: Plan, prometheus: str, journal: Journal, golden: Path | None, url: str | None, key_file: Path | None
) -> End:
    from shield.rollout.evidence import Prometheus
    from shield.rollout.golden import finds, read_questions
    from shield.rollout.steps import Rollout

    values = await helm.values()
    if not values.get("gateway", {}).get("enabled") or values.get("canary", {}).get("mode") == "flagger":
        raise ConfigInvalid("The release has no weights that Helm owns: it needs gateway.enabled, and canary.mode must not be flagger.")
    header = str(values["canary"]["header"])
    questions = read_questions(golden) if golden else ()
    token = token_of(key_file)
    # Asked once, before the canary has traffic: only then does the plain address lead to the stable servers alone.
    known = await finds(url, questions, token=token, header=None) if url else set()

    async def lost() -> tuple[str, ...]:
        new = await finds(url, tuple(known), token=token, header=header) if url else set()
        return tuple(sorted(question.query for question in known - new))

    async with Prometheus(prometheus, helm.namespace) as evidence:
        rolling = asyncio.create_task(Rollout(plan, helm, evidence.look, lost, journal).run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, rolling.cancel)
        return await rolling
