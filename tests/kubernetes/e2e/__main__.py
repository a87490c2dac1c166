"""`python -m tests.kubernetes.e2e [--full]`: from nothing to answers over MCP, with the time of each stage.

python -m tests.kubernetes.e2e                the short form: ingest, find, attacks
python -m tests.kubernetes.e2e --full         all of it, and a report in docs/reports
python -m tests.kubernetes.e2e -- -k site     what follows -- goes to pytest
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kubernetes.suite import Suite, main

SUITE = Suite("e2e", "End to end on a cluster", Path(__file__).parent, only_full=("full",))

if __name__ == "__main__":
    sys.exit(main(SUITE))
