"""Objects of the user's own."""

from __future__ import annotations

from tests.chart.render import render


def test_they_are_rendered_as_objects_and_as_text() -> None:
    assert render("oidc-ingress").one("ConfigMap", "extra")["data"] == {"a": "b"}
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-text}\ndata: {n: '{{ .Release.Namespace }}'}"
    assert render(values={"extraObjects": [text]}).one("ConfigMap", "text")["data"] == {"n": "team"}
