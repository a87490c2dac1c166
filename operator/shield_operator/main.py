"""`shield-operator`: the command of the operator's container."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from typing import Any

import structlog
from pydantic import ValidationError

from shield_operator import __version__, logs
from shield_operator.settings import ConfigurationError, Settings

log = structlog.get_logger("shield_operator.main")

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; tells the exit code: 0 after SIGTERM or SIGINT, 1 if it failed, 2 if it is set up wrongly."""
    parser = argparse.ArgumentParser(prog="shield-operator", description="Kubernetes operator of HX-Citadel Shield.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run one replica until SIGTERM", description="Settings are SHIELD_OPERATOR_...; see docs/OPERATOR.md."
    )
    run.add_argument("--namespace", action="append", default=[], metavar="NAME", help="serve only this namespace; may be repeated")
    kept = commands.add_parser(
        "secrets", help="make the Secrets of an installation once, or delete them", description="What the chart's hooks run."
    )
    actions = kept.add_subparsers(dest="action", required=True, metavar="ACTION")
    ensure = actions.add_parser("ensure", help="make what is missing; change nothing that is there")
    ensure.add_argument("--spec", required=True, metavar="JSON", help="names and origins; see shield_operator/bootstrap.py")
    delete = actions.add_parser("delete", help="delete Secrets by name")
    delete.add_argument("names", nargs="+", metavar="NAME")
    for action in (ensure, delete):
        action.add_argument("--namespace", required=True, metavar="NAME", help="where they are")
    given = parser.parse_args(arguments)
    if given.command == "secrets":
        return asyncio.run(_secrets(given))
    try:
        settings = _settings(given.namespace)
    except ConfigurationError as error:
        print(f"shield-operator: {error}", file=sys.stderr)  # noqa: T201  # the command line's answer
        return USAGE
    logs.configure(settings.log_format, settings.log_level)
    gc.set_threshold(50_000, 20, 100)  # caches of 20 000 objects are no garbage; looking through them again and again costs a cold start
    return asyncio.run(_run(settings))


def _settings(namespaces: list[str]) -> Settings:
    given: dict[str, Any] = {"namespaces": tuple(namespaces)} if namespaces else {}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(f"SHIELD_OPERATOR_{name}: {first['msg']}" if name else str(first["msg"])) from error


async def _secrets(given: argparse.Namespace) -> int:
    from shield_operator import bootstrap  # noqa: PLC0415  # heavy, and --help needs none of it
    from shield_operator.cluster import ClusterError, KubernetesCluster, configuration  # noqa: PLC0415

    logs.configure("auto", "info")
    try:
        settings = _settings([])
        specs = bootstrap.read_spec(given.spec) if given.action == "ensure" else []
        config = await configuration(settings.kubeconfig, connections=1)
        cluster = KubernetesCluster(config, timeout=settings.request_timeout, list_timeout=settings.list_timeout, page=settings.page)
        try:
            if given.action == "ensure":
                await bootstrap.ensure(cluster, given.namespace, specs)
            else:
                await bootstrap.delete(cluster, given.namespace, given.names)
        finally:
            await cluster.close()
    except (ConfigurationError, ClusterError) as error:
        log.error("secrets.failed", reason=str(error))  # noqa: TRY400  # the message says it all
        return USAGE if isinstance(error, ConfigurationError) else FAILED
    return OK


async def _run(settings: Settings) -> int:
    from shield_operator.process import operate  # noqa: PLC0415  # heavy, and --help needs none of it

    stop = asyncio.Event()

    def signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    log.info("operator.starts", version=__version__, identity=settings.identity, namespaces=list(settings.namespaces) or "all")
    try:
        await operate(settings, stop, signals=signals)
    except ConfigurationError as error:
        log.error("operator.misconfigured", error=str(error))  # noqa: TRY400  # the message says it all
        return USAGE
    except Exception as error:  # the boundary of the process: it ends, and says why
        log.error("operator.ended", reasons=_reasons(error), exc_info=error)  # noqa: TRY400
        return FAILED
    log.info("operator.stopped")
    return OK


def _reasons(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [reason for one in error.exceptions for reason in _reasons(one)]
    return [f"{type(error).__name__}: {error}"]


if __name__ == "__main__":
    sys.exit(main())
