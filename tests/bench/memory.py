"""Memory of `shield up`: PSS of the whole process tree, a while after the samples were built, with its parts.

`python -m tests.bench.memory [seconds after the samples, default 60]`. PSS counts shared pages once, divided among those who
share them (Linux's /proc/PID/smaps_rollup).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.processes import kill_tree, processes_of

LIMIT_MIB = 900


def pss_mib(pid: int) -> float:
    """Proportional set size of one process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def part(command: str) -> str:
    """Which part of the system a process is."""
    if "postgres" in command:
        return "PostgreSQL"
    if "files.host" in command:
        return "converters"
    if "graph.child" in command:
        return "LightRAG"
    return "server" if "shield" in command else "other"


def main() -> int:
    """Start, build the samples, wait, measure; exit with 1 above the limit."""
    pause = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory(prefix="shield-mem-", ignore_cleanup_errors=True) as parent:
        Path(parent).chmod(0o711)
        directory = Path(parent) / "data"
        environment = {
            **os.environ,
            "SHIELD_DATA_DIR": str(directory),
            "SHIELD_PORT": "0",
            "SHIELD_METRICS_PORT": "0",
            "SHIELD_LOG_FORMAT": "json",
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "shield", "up"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "answered with" in line:
                    print(line.strip())
                    break
            time.sleep(pause)
            parts: dict[str, float] = defaultdict(float)
            for process in processes_of(str(directory)):
                with contextlib.suppress(OSError):
                    parts[part(" ".join(process.cmdline()))] += pss_mib(process.pid)
        finally:
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
            kill_tree(str(directory))
    for name, size in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"{name:<12} {size:7.0f} MiB PSS")
    whole = sum(parts.values())
    print(f"whole tree   {whole:7.0f} MiB PSS, {pause:g} s after the samples (limit {LIMIT_MIB})")
    return 0 if whole <= LIMIT_MIB else 1


sys.exit(main())
