"""`make canary-demo`: a good version goes from 10 % over 50 % to 100 % of the traffic, a bad one comes back by itself; every decision is printed.

On the local cluster, with Traefik and Prometheus. A cluster that runs already is used and left running, and so is a release of Shield that it has.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from kind.cluster import Cluster
from kind.console import to_stderr
from kind.settings import KindSettings
from tests.kubernetes.release.addons import Addons
from tests.kubernetes.release.canary import Seen, bad_rollout, good_rollout
from tests.kubernetes.release.conftest import VALUES
from tests.kubernetes.release.installed import ROOT, Release


def main() -> int:
    """Show it; 1 if it did not go as it must."""
    cluster = Cluster(KindSettings(), to_stderr)
    ran_before = cluster.first_process() is not None
    try:
        cluster.up()
        subprocess.run([sys.executable, "-m", "images", "operator", "server", "services"], cwd=ROOT, check=True, timeout=3600)
        addons = Addons(cluster.kubectl, cluster.addresses.registry)
        release = Release(cluster, addons.gateway(), addons.prometheus())
        release.make_variants()
        print("helm install, with a gateway and monitoring", flush=True)
        release.install("--create-namespace", *VALUES)
        with tempfile.TemporaryDirectory() as scratch:
            print("\nA version that fails every call:", flush=True)
            bad = bad_rollout(release, _made(scratch, "bad"), _say)
            print("\nA version that works:", flush=True)
            good = good_rollout(release, _made(scratch, "good"), _say)
    finally:
        if not ran_before:
            cluster.down()
    wrong = [*_wrong_of_bad(bad), *(["calls failed while a good version was rolled out"] if good.failed else [])]
    print(f"\ncanary: {', '.join(wrong) or 'taken back by itself, and 10 % → 50 % → 100 %, ok'}")
    return int(bool(wrong))


def _wrong_of_bad(seen: Seen) -> list[str]:
    faults = {
        "no call met the bad version": not seen.failed,
        "too many calls failed": seen.failed > seen.bound,
        "calls failed after the decision": seen.after_decision > 0,
        "it lasted too long": seen.lasted + 60 >= 300,
    }
    return [fault for fault, is_so in faults.items() if is_so]


def _made(scratch: str, name: str) -> Path:
    path = Path(scratch) / name
    path.mkdir()
    return path


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
