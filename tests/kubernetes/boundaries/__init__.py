"""What the operator does at every boundary: `make proof-boundaries` beats it, and counts what was lost or done twice.

Beneath are the real things: etcd, API server, controller-manager, scheduler; PostgreSQL, Valkey, an orchestrator and two idle workers of a fleet; the
operator as a process, under the permissions of its ServiceAccount; pods that are processes of `shield run-job`. Between the operator and whom it talks to
stand proxies that misbehave (`tests/kubernetes/api_proxy.py`).
"""
