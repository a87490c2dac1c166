"""Runs in a final stage: writes what the image contains as CycloneDX 1.6 JSON.

    python sbom.py COMPONENT OUTPUT

Listed are Python itself, every installed Python distribution (its own metadata) and every Debian package (dpkg's status). Nothing is
looked up anywhere, and the same contents give the same bytes: no serial number, no time. The script stays in the image, so its contents can
be asked for again: `docker run --rm --entrypoint python IMAGE /usr/local/share/shield/sbom.py shield-server /dev/stdout`.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")

Component = dict[str, Any]


def python_components() -> Iterator[Component]:
    """Python and what is installed for it."""
    yield _component("application", "python", platform.python_version(), f"pkg:generic/python@{platform.python_version()}", "PSF-2.0")
    for distribution in distributions():
        metadata = distribution.metadata
        name, version = metadata["Name"], distribution.version
        purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}"
        yield _component("library", name, version, purl, next(iter(metadata.get_all("License-Expression") or []), None))


def debian_components(status: str) -> Iterator[Component]:
    """What dpkg says is installed."""
    for paragraph in status.split("\n\n"):
        package = Parser().parsestr(paragraph.strip(), headersonly=True)
        if package.get("Status", "").endswith(" installed"):
            name, version, architecture = package["Package"], package["Version"], package["Architecture"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
            yield _component("library", name, version, purl, None)


def bill(component: str, version: str, components: list[Component]) -> dict[str, Any]:
    """The document, in a fixed order."""
    unique = {entry["bom-ref"]: entry for entry in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": component, "name": component, "version": version}},
        "components": [unique[reference] for reference in sorted(unique)],
    }


def _component(kind: str, name: str, version: str, purl: str, expression: str | None) -> Component:
    entry: Component = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if expression:
        entry["licenses"] = [{"expression": expression}]
    return entry


def main(component: str, output: Path) -> None:
    """Write the bill of this interpreter's environment and of this system."""
    found = [*python_components(), *debian_components(DPKG_STATUS.read_text(encoding="utf-8"))]
    own = next((entry["version"] for entry in found if entry["name"] in {"hx-citadel-shield", "shield-operator"}), "0")
    output.write_text(json.dumps(bill(component, own, found), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
