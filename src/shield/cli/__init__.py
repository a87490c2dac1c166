"""The command line. Importing it loads nothing heavy: `shield --help` answers at once.

Every command talks to the owner of the data directory, or becomes the owner for its own life; `--json` prints the same
models that REST and MCP answer with. Exit codes are fixed (`shield.errors.Exit`).
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `shield`."""
    from shield.cli.app import run
    from shield.cli.private import keep_private

    keep_private()
    sys.exit(run(sys.argv[1:]))
