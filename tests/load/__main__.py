"""`make load`: measure the capacity of a fleet, ask for three times as much, and watch its memory under a soak."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.fleet import Fleet, Member

_FILE = Path(__file__).parent / "mcp_tools.py"
_SLOPE_LIMIT = 1.0  # MiB a minute
_ENVIRONMENT = {"SHIELD_LOG_LEVEL": "warning", "SHIELD_JOBS_MAX_PENDING_PRINCIPAL": "10000", "SHIELD_JOBS_MAX_RUNNING_PRINCIPAL": "100"}


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="make load")
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--soak", type=float, default=0, help="minutes of soak at half the capacity (10 to judge the slope)")
    parser.add_argument("--rate", type=float, help="calls/s of the soak; the capacity is not measured then")
    parser.add_argument("--leak", action="store_true", help="plant a leak of 2 MiB/min: the soak must catch it")
    options = parser.parse_args()
    environment = dict(_ENVIRONMENT)
    if options.leak:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_FILE.parent / "leaky"), os.environ.get("PYTHONPATH"))))
    faults: list[str] = []
    with Fleet(workers=1, environment=environment) as fleet:
        job = _fill(fleet)
        rate = options.rate
        if rate is None:
            capacity = _capacity(fleet, job, options.seconds)
            faults += _overload(fleet, job, capacity, options.seconds)
            rate = capacity / 2
        if options.soak:
            steep = _soak(fleet, job, rate, options.soak)
            if options.leak:
                print("planted leak: " + ("caught" if steep else "NOT caught"))
                faults += [] if steep else ["the planted leak was not caught"]
            else:
                faults += steep
    print("load: " + ("ok" if not faults else "FAILED: " + "; ".join(faults)))
    return 1 if faults else 0


def _fill(fleet: Fleet) -> str:
    """A knowledge base with 200 notes, and a job to ask for."""
    with httpx.Client(base_url=fleet.api_url, timeout=60) as client:
        client.post("/knowledge-bases", json={"name": "load", "graph": False}).raise_for_status()
        for number in range(200):
            text = f"The valve number {number} in Aachen opens at {number * 7} bar and is checked by an inspector."
            client.post("/notes", json={"knowledge_base": "load", "text": text, "source": f"seed:{number}"}).raise_for_status()
        spec = {"type": "document", "text": "One document.", "source": "one"}
        job = client.post("/lightrag/ingest-async", json={"knowledge_base": "load", "spec": spec}).raise_for_status().json()["job_id"]
        client.get(f"/jobs/{job}", params={"wait": 45}).raise_for_status()
    return str(job)


def _locust(fleet: Fleet, job: str, seconds: float, *, users: int, rate: float = 0) -> list[dict[str, Any]]:
    """Run Locust; its statistics by tool."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "locust",
            "-f",
            str(_FILE),
            "--headless",
            "--json",
            "--users",
            str(users),
            "--spawn-rate",
            "100",
            "--run-time",
            f"{seconds:.0f}s",
            "--stop-timeout",
            "5",
            "--host",
            fleet.mcp_url.removesuffix("/mcp"),
            "--exit-code-on-error",
            "0",
        ],
        env={**os.environ, "LOAD_RATE": str(rate), "LOAD_JOB": job},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    start = done.stdout.index("[")
    statistics, _ = json.JSONDecoder().raw_decode(done.stdout[start:])
    print("  " + " ".join(line for line in done.stdout.splitlines() if line.startswith("refused")))
    for error in [line for line in done.stderr.splitlines() if "failure" in line.lower()][:5]:
        print("  " + error)
    return list(statistics)


def _sum(statistics: list[dict[str, Any]]) -> tuple[int, int, float]:
    """(replies, failures, longest in ms)."""
    return (
        sum(item["num_requests"] for item in statistics),
        sum(item["num_failures"] for item in statistics),
        max((item["max_response_time"] for item in statistics), default=0.0),
    )


def _capacity(fleet: Fleet, job: str, seconds: int) -> float:
    replies, failures, longest = _sum(_locust(fleet, job, seconds, users=8))
    capacity = replies / seconds
    print(f"capacity: {capacity:.0f} calls/s with 8 agents, {failures} failures, longest {longest:.0f} ms", flush=True)
    return capacity


def _overload(fleet: Fleet, job: str, capacity: float, seconds: int) -> list[str]:
    statistics = _locust(fleet, job, seconds, users=10, rate=3 * capacity)
    replies, failures, longest = _sum(statistics)
    print(
        f"3x: {replies / seconds:.0f} calls/s offered, {failures} replies neither 2xx, 429, 503 nor in 2 s; longest {longest:.0f} ms",
        flush=True,
    )
    for tool in statistics:
        print(
            f"  {tool['name']}: {tool['num_requests']} replies, {tool['num_failures']} failures, longest {tool['max_response_time']:.0f} ms"
        )
    return [f"{failures} of {replies} replies at three times the capacity"] if failures else []


def _soak(fleet: Fleet, job: str, rate: float, minutes: float) -> list[str]:
    """`rate` calls a second for `minutes`; the slope of each process's memory after the first three tenths."""
    print(f"soak: {rate:.0f} calls/s for {minutes:g} min", flush=True)
    command = [sys.executable, "-m", "locust", "-f", str(_FILE), "--headless", "--users", "10", "--spawn-rate", "100", "--only-summary"]
    command += ["--run-time", f"{minutes * 60:.0f}s", "--host", fleet.mcp_url.removesuffix("/mcp"), "--exit-code-on-error", "0"]
    samples: dict[str, list[tuple[float, float]]] = {member.name: [] for member in fleet.members}
    with subprocess.Popen(
        command,
        env={**os.environ, "LOAD_RATE": str(rate), "LOAD_JOB": job},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as load:
        began = time.monotonic()
        while load.poll() is None:
            for member in fleet.members:
                samples[member.name].append(((time.monotonic() - began) / 60, _memory(member)))
            time.sleep(2)
    return [fault for name, points in samples.items() if (fault := _steep(name, points, minutes))]


def _memory(member: Member) -> float:
    return psutil.Process(member.pid).memory_info().rss / 2**20


def _steep(name: str, points: list[tuple[float, float]], minutes: float) -> str | None:
    late = np.array([point for point in points if point[0] >= 0.3 * minutes])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0])
    print(f"  {name}: {late[0, 1]:.0f} -> {late[-1, 1]:.0f} MiB, slope {slope:+.2f} MiB/min after minute {0.3 * minutes:g}", flush=True)
    return f"{name} grows by {slope:.2f} MiB/min" if slope >= _SLOPE_LIMIT else None


if __name__ == "__main__":
    sys.exit(main())
