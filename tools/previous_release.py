#!/usr/bin/env python3
"""Whether the previous release works on this release's schema: its code and its integration tests, on databases that our migrations make.

    make test-previous                       the newest tag v*; where there is none, the commit that was released as 0.1.0
    make test-previous ARGS="v0.1.0"         another one
    make test-previous ARGS="v0.1.0 -k jobs" what follows goes to pytest

Its tree is unpacked beside this one, with its own locked environment, and gets our migrations. Files that judge the schema by the number their program
knows (`migrate.HEAD`: saving, restoring, upgrading) are left out and named: an older release refuses a newer schema there on purpose.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = Path("src/shield/database/migrations/versions")
PREVIOUS = "a7e9cc1"
"""The commit that was released as 0.1.0, which has no tag."""
_LIMIT = 2400  # seconds
_KNOWS_THE_NUMBER = re.compile(r"\bmigrate\.HEAD\b|from shield\.database\.migrate import .*\bHEAD\b")


def main(arguments: list[str]) -> int:
    """Run them; pytest's exit code."""
    given = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    release = given or _newest_tag() or PREVIOUS
    options = arguments[1:] if given else arguments
    with tempfile.TemporaryDirectory(prefix="shield-previous-") as scratch:
        tree = Path(scratch)
        tree.chmod(0o755)  # as root, the embedded PostgreSQL runs as somebody else, who must get to its programs
        archive = _git("archive", "--format=tar", release)
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(tree, filter="data")
        theirs = {path.name for path in (tree / MIGRATIONS).glob("[0-9]*.py")}
        ours = sorted((ROOT / MIGRATIONS).glob("[0-9]*.py"))
        added = [path.stem for path in ours if path.name not in theirs]
        if not added:
            print(f"{release} has the newest schema, {ours[-1].stem}: nothing to find out", file=sys.stderr)
            return 2
        for path in ours:
            shutil.copy(path, tree / MIGRATIONS / path.name)
        tests = tree / "tests" / "integration"
        left_out = sorted(path for path in tests.rglob("test_*.py") if _KNOWS_THE_NUMBER.search(path.read_text(encoding="utf-8")))
        print(f"The code and tests of {release} on the schema {ours[-1].stem} (new to it: {', '.join(added)})")
        print(f"left out, for they judge the schema's number: {', '.join(str(path.relative_to(tree)) for path in left_out)}", flush=True)
        subprocess.run([str(tree / "tools" / "bootstrap")], cwd=tree, check=True, timeout=_LIMIT)
        ignored = [f"--ignore={path}" for path in left_out]
        marked = "kubernetes: " in (tree / "pyproject.toml").read_text(encoding="utf-8")
        chosen = ["-m", "not whole and not kubernetes"] if marked else []
        command = [str(tree / "tools" / "run"), "pytest", "-n", "2", "-q", *chosen, *ignored, *options, str(tests)]
        return subprocess.run(command, cwd=tree, check=False, timeout=_LIMIT).returncode


def _newest_tag() -> str:
    tags = _git("tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname").decode().split()
    here = set(_git("tag", "--points-at", "HEAD").decode().split())
    return next((tag for tag in tags if tag not in here), "")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
