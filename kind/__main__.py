"""`python -m kind up | down | status | build | proof-clean`: a Kubernetes of one node on this machine. See docs/CLUSTER.md."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from kind.binaries import Store
from kind.catalogue import COMMON
from kind.cluster import Cluster
from kind.console import to_stderr
from kind.errors import InvalidSettings, KindError
from kind.kind_cli import KindCli
from kind.proof import prove
from kind.settings import KindSettings
from kind.status import ClusterStatus, State, status

_NOT_RUNNING = 3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m kind", description="A Kubernetes of one node on this machine, of upstream components, without Docker."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, what in {
        "up": "start the cluster, or finish its start",
        "down": "stop it and remove every trace",
        "status": "show it; exit code 3 if it does not run",
        "build": "build what a cluster and the tests need and is not built yet",
        "proof-clean": "start a cluster of its own, use it, stop it, and count what is left behind",
    }.items():
        found = verbs.add_parser(verb, help=what, description=what)
        if verb in ("up", "down", "status", "proof-clean"):
            found.add_argument(
                "--name", help="the cluster's name (SHIELD_KIND_CLUSTER, or `shield`); clusters of different names run side by side"
            )
        if verb in ("up", "down", "status"):
            found.add_argument("--provider", choices=("local", "kind"), default="local", help="`kind`: in Docker, by the kind program")
        if verb in ("up", "status"):
            found.add_argument("--json", action="store_true", help="print the status as JSON")
        if verb == "proof-clean":
            found.add_argument("--sabotage", action="store_true", help="leave a mount on purpose, which must be noticed")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one verb."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except KindError as error:
        to_stderr(f"{error.code}: {error}")
        if error.advice:
            to_stderr(error.advice)
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    settings = _settings(getattr(options, "name", None), proof=options.verb == "proof-clean")
    if options.verb == "build":
        Store(settings, to_stderr).ensure(COMMON)
        print(settings.cache / "bin")
        return 0
    if options.verb == "proof-clean":
        return _proof(settings, sabotage=options.sabotage)
    cluster: Cluster | KindCli = KindCli(settings, to_stderr) if options.provider == "kind" else Cluster(settings, to_stderr)
    if options.verb == "down":
        found = cluster.down()
        print(f"cluster {settings.cluster}: {'stopped, nothing is left' if found else 'there was none'}")
        return 0
    if options.verb == "up":
        cluster.up()
    seen = _status(cluster, settings.cluster)
    print(seen.to_json() if options.json else seen.to_text())
    return 0 if seen.state is State.RUNNING else _NOT_RUNNING


def _settings(name: str | None, *, proof: bool) -> KindSettings:
    """The environment's settings, and the cluster that was asked for; the proof never touches a cluster that is used."""
    named = name or ("proof-clean" if proof else None)
    try:
        return KindSettings(cluster=named) if named else KindSettings()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise InvalidSettings(problems) from None


def _status(cluster: Cluster | KindCli, name: str) -> ClusterStatus:
    return cluster.status() if isinstance(cluster, KindCli) else status(cluster, name)


def _proof(settings: KindSettings, *, sabotage: bool) -> int:
    left = prove(Cluster(settings, to_stderr), to_stderr, sabotage=sabotage)
    for fact in left:
        print(f"  left: {fact}")
    print(f"left behind: {len(left)}")
    if sabotage:
        print(f"proof-clean with a mount left on purpose: {'noticed, as it must be' if left else 'NOT NOTICED'}")
        return 0 if left else 1
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
