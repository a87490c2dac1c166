"""The CRDs: those that the operator's models generate, upgraded with the release and kept when it goes."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.chart.render import render

ROOT = Path(__file__).parents[2]


def test_they_are_the_generated_ones() -> None:
    for crd in render(crds=True).of("CustomResourceDefinition"):
        generated = yaml.safe_load(
            (ROOT / "operator" / "manifests" / "crds" / f"{crd['spec']['names']['plural']}.yaml").read_text(encoding="utf-8")
        )
        assert crd["spec"] == generated["spec"]
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_keeping_installing_and_annotations_are_choices() -> None:
    values = {"crds": {"keep": False, "annotations": {"argocd.argoproj.io/sync-options": "ServerSideApply=true"}}}
    found = render(values=values, crds=True).of("CustomResourceDefinition")
    assert len(found) == 3
    assert found[0]["metadata"]["annotations"] == {"argocd.argoproj.io/sync-options": "ServerSideApply=true"}
    assert render("umbrella").of("CustomResourceDefinition") == []
