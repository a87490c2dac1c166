"""The words of the configuration filled in, and rules as YAML that people can read."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Any

import yaml

from monitoring.model import Alert, AlertGroup, Record, RecordGroup, Tools

Document = dict[str, Any]

NAMESPACE = "__NAMESPACE__"
RUNBOOKS = "__RUNBOOKS__"
"""What the chart replaces by the release's namespace and by where the runbooks are."""


@dataclass(frozen=True)
class Words:
    """What the words with $ mean in one rendering."""

    tools: Tools
    namespace: str
    """The namespace that every selector names; empty: all, told apart by their label."""
    runbooks: str

    @property
    def namespace_label(self) -> dict[str, str]:
        """For records that are made of nothing and have no labels of their own."""
        return {"namespace": self.namespace} if self.namespace else {}

    def fill(self, expr: str, window: str = "") -> str:
        """An expression with its words filled in.

        Raises:
            KeyError: it has a word that nobody knows.
        """
        words = {
            "ns": f'namespace="{self.namespace}",' if self.namespace else "",
            "query_tools": "|".join(self.tools.query),
            "accept_tools": "|".join(self.tools.accept),
            "not_counted": "|".join(self.tools.not_counted),
        }
        filled = Template(expr).substitute(words | ({"window": window} if window else {}))
        return filled.replace("{ ", "{").replace(",}", "}").strip()

    def runbook(self, alert: str) -> str:
        """Where to read what to do."""
        return f"{self.runbooks}/{alert}.md"


def record(rule: Record, words: Words) -> Document:
    """A recording rule as Prometheus reads it."""
    return {"record": rule.record, "expr": words.fill(rule.expr), **({"labels": rule.labels} if rule.labels else {})}


def alert(rule: Alert, words: Words) -> Document:
    """An alerting rule as Prometheus reads it; only with a namespace it is known what must be there."""
    expr = words.fill(rule.expr)
    if rule.missing and words.namespace:
        expr += f"\nor absent({words.fill(rule.missing)})"
    return {
        "alert": rule.alert,
        "expr": expr,
        "for": rule.for_,
        "labels": {"severity": str(rule.severity)},
        "annotations": {"summary": rule.summary, "description": rule.description, "runbook_url": words.runbook(rule.alert)},
    }


def record_group(group: RecordGroup, words: Words, more: list[Document]) -> Document:
    """A group of recording rules, and `more` after them."""
    return {"name": group.group, "interval": group.interval, "rules": [*(record(rule, words) for rule in group.rules), *more]}


def alert_group(group: AlertGroup, words: Words) -> Document:
    """A group of alerting rules."""
    return {"name": group.group, "interval": "30s", "rules": [alert(rule, words) for rule in group.rules]}


class _Dumper(yaml.SafeDumper):
    """Lines of an expression stay lines."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(document: Document, comment: str) -> str:
    """A file of rules."""
    return f"# {comment}\n" + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
