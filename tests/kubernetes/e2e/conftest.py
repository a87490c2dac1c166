"""One cluster with everything on it for all end-to-end tests. A cluster that runs already is used, and left running."""

from __future__ import annotations

import pytest

from kind.cluster import Cluster
from kind.console import to_stderr
from kind.settings import KindSettings
from tests.kubernetes.e2e.installation import Installation, install, knowledge_base


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The services, Shield, the operator, and the knowledge base `handbook` of team-a."""
    cluster = Cluster(KindSettings(), to_stderr)
    cluster.up()
    installed = install(cluster)
    installed.apply(knowledge_base())
    installed.wait("Ready", "knowledgebase/handbook", seconds=120)
    return installed
