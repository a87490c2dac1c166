"""The bill of materials lists what is there, in a fixed order, and its form is CycloneDX 1.6."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from images import sbom

STATUS = """Package: tini
Status: install ok installed
Architecture: amd64
Version: 0.19.0-1
Description: a tiny init
 with a second line

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u14
"""


def test_only_installed_debian_packages_are_listed_with_escaped_versions() -> None:
    found = list(sbom.debian_components(STATUS))
    assert [entry["purl"] for entry in found] == [
        "pkg:deb/debian/tini@0.19.0-1?arch=amd64",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64",
    ]


def test_every_python_distribution_is_listed_with_its_version() -> None:
    found = {entry["purl"]: entry for entry in sbom.python_components()}
    assert found[f"pkg:pypi/pydantic@{version('pydantic')}"]["name"] == "pydantic"
    assert any(purl.startswith("pkg:generic/python@3.") for purl in found)


def test_the_same_contents_give_the_same_bytes_in_whatever_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS)
    monkeypatch.setattr(sbom, "DPKG_STATUS", status)
    sbom.main("shield-server", tmp_path / "one.json")
    status.write_text("\n\n".join(reversed(STATUS.strip().split("\n\n"))))
    sbom.main("shield-server", tmp_path / "two.json")
    written = (tmp_path / "one.json").read_text()
    assert written == (tmp_path / "two.json").read_text()
    document = json.loads(written)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "shield-server"
    references = [entry["bom-ref"] for entry in document["components"]]
    assert references == sorted(set(references))
