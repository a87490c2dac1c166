"""Prints the bill of materials of a release of the chart: the chart, and the images that it installs (CycloneDX 1.6).

    helm template shield dist/shield-0.2.0.tgz | tools/run python tools/chart_sbom.py > sbom.cdx.json

What is in our images is in bills of their own. The same manifests give the same bytes: no serial number, no time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import yaml


def images(objects: Iterable[Any]) -> set[str]:
    """Every image that a container of these objects names."""
    return {str(container["image"]) for found in objects for container in _containers(found)}


def _containers(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"containers", "initContainers"} and isinstance(inner, list):
                yield from (one for one in inner if isinstance(one, dict) and "image" in one)
            else:
                yield from _containers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _containers(inner)


def image_component(reference: str) -> dict[str, Any]:
    """An image as a component, named by its package URL (type `oci`)."""
    name, _, digest = reference.partition("@")
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    short = path.rpartition("/")[2]
    version = digest or tag or "latest"
    qualifiers = f"repository_url={quote(path, safe='')}" + (f"&tag={quote(tag)}" if tag else "")
    purl = f"pkg:oci/{quote(short)}" + (f"@{quote(digest, safe='')}" if digest else "") + f"?{qualifiers}"
    return {"type": "container", "bom-ref": purl, "name": path, "version": version, "purl": purl}


def bill(objects: list[Any]) -> dict[str, Any]:
    """The document; name and version of the chart are those of its objects' labels."""
    charts = {one["metadata"]["labels"]["helm.sh/chart"] for one in objects if "helm.sh/chart" in (one["metadata"].get("labels") or {})}
    if len(charts) != 1:
        raise SystemExit(f"these are not the objects of one chart: {sorted(charts) or 'no label helm.sh/chart'}")
    name, _, version = charts.pop().rpartition("-")
    chart = {
        "type": "application",
        "bom-ref": f"pkg:helm/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:helm/{name}@{version}",
    }
    components = [image_component(reference) for reference in sorted(images(objects))]
    depends = [{"ref": chart["bom-ref"], "dependsOn": [one["bom-ref"] for one in components]}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": chart},
        "components": components,
        "dependencies": depends,
    }


def main() -> int:
    """Read manifests, print their bill."""
    objects = [one for one in yaml.safe_load_all(sys.stdin) if isinstance(one, dict)]
    print(json.dumps(bill(objects), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
