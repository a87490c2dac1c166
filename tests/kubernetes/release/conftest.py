"""One release on one cluster for all tests of this directory, which run in the order of their files' names."""

from __future__ import annotations

import pytest

from kind.cluster import Cluster
from kind.console import to_stderr
from kind.settings import KindSettings
from tests.kubernetes.release.addons import GATEWAY, Addons
from tests.kubernetes.release.installed import HOST, Release

VALUES = (
    *("--set", f"publicUrl=http://{HOST}", "--set", "gateway.enabled=true"),
    *("--set", f"gateway.parentRefs[0].name=public,gateway.parentRefs[0].namespace={GATEWAY}"),
    *("--set", "monitoring.serviceMonitors.enabled=true,monitoring.rules.enabled=true,monitoring.dashboards.enabled=true"),
    *("--set", "monitoring.serviceMonitors.interval=5s,monitoring.serviceMonitors.timeout=4s"),
    *("--set", "mcp.replicas=2"),
)
"""Of an installation with everything: a gateway, ServiceMonitors, rules. A short interval, so that tests need not wait for a minute's samples."""


@pytest.fixture(scope="session")
def bare() -> Release:
    """A cluster with a gateway and Prometheus, and nothing of Shield."""
    cluster = Cluster(KindSettings(), to_stderr)
    cluster.up()
    addons = Addons(cluster.kubectl, cluster.addresses.registry)
    return Release(cluster, addons.gateway(), addons.prometheus())


@pytest.fixture(scope="session")
def release(bare: Release) -> Release:
    """The release, installed with everything, and two later versions of the server's image in the registry."""
    bare.make_variants()
    bare.install("--create-namespace", *VALUES)
    return bare
