"""Finding and ending the processes that a test left on a data directory."""

from __future__ import annotations

import contextlib

import psutil


def processes_of(marker: str) -> list[psutil.Process]:
    """All processes whose command line, environment or working directory names `marker`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if marker in " ".join(process.cmdline()) or marker in process.environ().get("SHIELD_DATA_DIR", "") or marker in process.cwd():
                found.append(process)
    return found


def kill_tree(marker: str) -> None:
    """Kill them all and wait until they are gone."""
    victims = processes_of(marker)
    for process in victims:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(victims, timeout=5)
