"""`python -m tests.monitoring [--sabotage]`: see `proof.py`."""

from __future__ import annotations

import argparse
import sys

from tests.kubernetes.replica import end_in_order
from tests.monitoring.proof import prove


def main() -> int:
    """Prove, or show that harm is noticed."""
    parser = argparse.ArgumentParser(prog="make proof-monitoring")
    parser.add_argument("--sabotage", action="store_true", help="break an alert, a panel and a runbook first; each must be noticed")
    sabotage = parser.parse_args().sabotage
    end_in_order()
    good = prove(sabotage=sabotage)
    if sabotage:
        print(f"proof-monitoring on what was broken on purpose: {'noticed, as it must be' if good else 'NOT NOTICED'}")
    else:
        print(f"proof-monitoring: {'ok' if good else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
