"""`python -m tools.docs_run [--cluster] [--list] [DOCUMENT ...]`: run the documents' commands; see the package's text."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tools.docs_run.blocks import MAX_EXCUSED, Block, Where, collect
from tools.docs_run.shell import Failed, Shell

ROOT = Path(__file__).resolve().parents[2]
SETUP = 900
"""Seconds that preparing the clone may take."""


def main() -> int:
    """Collect, run, count."""
    parser = argparse.ArgumentParser(prog="make docs-run", description="Run the commands that the documents show.")
    parser.add_argument("documents", nargs="*", help="only these, as docs/FLEET.md")
    parser.add_argument(
        "--cluster",
        action="store_true",
        help="also what needs the local cluster with the chart on it (make cluster-up images install, docs/DEPLOYMENT.md)",
    )
    parser.add_argument("--only-cluster", action="store_true", help="only that")
    parser.add_argument("--list", action="store_true", help="say what would be run and what is excused; run nothing")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that shells end what they started
    blocks, mistakes = collect(ROOT)
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    if unknown := set(arguments.documents) - {str(block.document) for block in blocks}:
        parser.error(f"no blocks in {', '.join(sorted(unknown))}")
    chosen = [block for block in blocks if not arguments.documents or str(block.document) in arguments.documents]
    for block in chosen:
        if arguments.list or block.reason:
            print(f"{block.document}:{block.line}: {f'excused: {block.reason}' if block.reason else block.where}")
    wanted = {Where.CLUSTER} if arguments.only_cluster else {Where.LOCAL, Where.CLUSTER} if arguments.cluster else {Where.LOCAL}
    runs = [block for block in chosen if block.where in wanted]
    count, failures = (0, 0) if arguments.list else _run(runs)
    left = sum(block.where is Where.CLUSTER for block in chosen) if Where.CLUSTER not in wanted else 0
    excused = sum(block.where is Where.EXCUSED for block in blocks)
    verdict = f"{failures} failed" if failures else f"{len(mistakes)} mistakes" if mistakes else "ok"
    print(f"docs-run: {count} run, {left} of cluster not run, {excused} excused (limit {MAX_EXCUSED}), {verdict}")
    return 1 if failures or mistakes else 0


def _run(blocks: list[Block]) -> tuple[int, int]:
    """Run them, each chain in a shell of its own, which ends at its first failure; how many blocks did what they should, and how many failed."""
    if not blocks:
        return 0, 0
    count = failures = 0
    with tempfile.TemporaryDirectory(prefix="shield-docs-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, the embedded PostgreSQL runs as somebody else, who must get to its data directory
        clone = _clone(folder)
        kubeconfig, programs = _cluster() if any(block.where is Where.CLUSTER for block in blocks) else ("", "")
        for number, chain in enumerate(chains(blocks)):
            began = time.monotonic()
            first = chain[0]
            home = folder / f"{number}"
            environment = _environment(clone, home)
            if first.where is Where.CLUSTER:
                environment |= {"KUBECONFIG": kubeconfig, "PATH": f"{environment['PATH']}:{programs}"}
            try:
                with ExitStack() as stack:
                    shell = stack.enter_context(Shell(clone, environment, home))
                    for block in chain:
                        shell.run(block)
                        count += 1
            except Failed as failed:
                failures += 1
                print(failed, file=sys.stderr, flush=True)
            else:
                print(f"{first.document}:{first.line}: {len(chain)} blocks, {time.monotonic() - began:.0f} s", flush=True)
    return count, failures


def chains(blocks: list[Block]) -> list[list[Block]]:
    """Blocks that share a shell."""
    found: list[list[Block]] = []
    for block in blocks:
        if block.continues and found:
            found[-1].append(block)
        else:
            found.append([block])
    return found


def _clone(folder: Path) -> Path:
    """The working copy as it is, uncommitted changes included, with an environment of its own."""
    clone = folder / "shield"
    subprocess.run(["git", "clone", "--quiet", "--local", str(ROOT), str(clone)], check=True, timeout=SETUP)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-mo", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, timeout=SETUP, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = clone / name
        if (ROOT / name).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
        else:
            target.unlink(missing_ok=True)
    subprocess.run(["make", "--silent", "sync"], cwd=clone, check=True, timeout=SETUP)
    return clone


def _environment(clone: Path, home: Path) -> dict[str, str]:
    """This process's environment without anything of Shield's or a cluster's, with the clone's programs and a data directory of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SHIELD_", "MAKE", "MFLAGS", "VIRTUAL_ENV")) and name != "KUBECONFIG"
    }
    return kept | {"PATH": f"{clone}/.venv/bin:{kept['PATH']}", "SHIELD_DATA_DIR": f"{home}-data", "TERM": "dumb", "COLUMNS": "200"}


def _cluster() -> tuple[str, str]:
    """KUBECONFIG and programs of the local cluster, which must run."""
    status = subprocess.run(
        [sys.executable, "-m", "kind", "status", "--json"], cwd=ROOT, capture_output=True, timeout=120, text=True, check=False
    )
    if status.returncode != 0:
        raise SystemExit("docs-run --cluster needs the local cluster with the chart on it: docs/DEPLOYMENT.md")
    told = json.loads(status.stdout)
    return told["kubeconfig"], told["programs"]


if __name__ == "__main__":
    sys.exit(main())
