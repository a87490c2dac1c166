"""Settings and fetchers that may reach one test site, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shield.settings import Settings, load
from shield.sources.egress import EgressGuard, Resolve
from shield.sources.fetch import Fetcher
from shield.sources.politeness import Politeness
from tests.peers.site import Site

CRAWL = {"per_host_delay": 0, "page_timeout": 2, "document_timeout": 2, "default_retry_after": 0.05, "max_retry_after": 1}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A site without pages; tests put what they need."""
    async with Site() as site:
        yield site


@pytest.fixture
async def tree() -> AsyncIterator[Site]:
    """Twenty-four pages, each with three children."""
    async with Site(pages=24, fan=3) as site:
        yield site


def web_settings(*ports: int, **crawl: object) -> Settings:
    """Test settings that open exactly these loopback ports."""
    return load(data_dir=Path("/nonexistent"), egress={"allow": [f"127.0.0.1/32:{port}" for port in ports]}, crawl=CRAWL | crawl)


def fetcher(*ports: int, resolve: Resolve | None = None, **crawl: object) -> Fetcher:
    """A fetcher that may reach these loopback ports."""
    settings = web_settings(*ports, **crawl)
    return Fetcher(EgressGuard(settings.egress, resolve), Politeness(settings.crawl), settings)
