"""Which images there are, and how large each may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MB = 1_000_000


@dataclass(frozen=True)
class Image:
    """One image: a target of a Dockerfile."""

    name: str
    target: str
    limit: int
    """Largest size in bytes, all layers unpacked."""
    dockerfile: Path = ROOT / "images" / "Dockerfile"
    on: str | None = None
    """The image it is built on, if that is one of ours; it becomes the build argument `SERVER`."""

    def local(self, tag: str) -> str:
        """Its name in the builder's own store."""
        return f"localhost/{self.name}:{tag}"

    def remote(self, registry: str, tag: str) -> str:
        """Its name in a registry."""
        return f"{registry}/{self.name}:{tag}"


SERVER = Image("shield-server", "server", 900 * MB)
CRAWLER = Image("shield-crawler", "crawler", 1500 * MB)
OPERATOR = Image("shield-operator", "operator", 250 * MB)
TEST_SERVICES = Image(
    "shield-test-services",
    "services",
    1000 * MB,
    dockerfile=ROOT / "tests" / "kubernetes" / "services" / "Dockerfile",
    on=SERVER.name,
)
"""PostgreSQL, Valkey, the Qdrant test peer and a site, for tests on a cluster; never published."""

PRODUCT = (OPERATOR, SERVER, CRAWLER)
ALL = {image.target: image for image in (*PRODUCT, TEST_SERVICES)}


def version() -> str:
    """The version that images are tagged with: that of the product's own package."""
    source = (ROOT / "src" / "shield" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise AssertionError("src/shield/__init__.py names no version")
    return found.group(1).replace("+", "-")
