"""`python -m tests.kubernetes.release [--full]`: the chart on a fresh cluster, with the time of each stage.

python -m tests.kubernetes.release                 the short form: install, `helm test`, monitors, examples, secrets, uninstall
python -m tests.kubernetes.release --full          all of it, and a report in docs/reports
python -m tests.kubernetes.release -- -k split     what follows -- goes to pytest
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kubernetes.suite import Suite, main

LONG = ("test_2_canary.py", "test_3_alerts.py", "test_4_upgrade.py", "test_5_flagger.py")
SUITE = Suite("release", "The chart on a cluster", Path(__file__).parent, only_full=LONG, fresh=True)

if __name__ == "__main__":
    sys.exit(main(SUITE))
