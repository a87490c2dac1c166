"""The chart as a platform engineer meets it: installed on a cluster with a gateway, Prometheus and metrics; upgraded, shifted, broken, taken away.

`python -m tests.kubernetes.release` runs it on a fresh local cluster; `python -m tests.kubernetes.release.canary_demo` shows the canary alone.
"""
