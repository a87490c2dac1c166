"""The committed CRDs keep Kubernetes' API conventions, and the linter notices each one that is broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.api.linter import RULES, Finding, lint, nodes

CRDS = sorted((Path(__file__).parents[4] / "operator" / "manifests" / "crds").glob("*.yaml"))

Schema = dict[str, Any]


@cache
def _read(path: Path) -> Schema:
    crd: Schema = yaml.safe_load(path.read_text(encoding="utf-8"))
    return crd


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
class TestTheCommittedCrds:
    def test_break_no_rule(self, path: Path) -> None:
        assert lint(_read(path)) == []

    def test_have_fields_to_look_at(self, path: Path) -> None:
        assert sum(1 for version in _read(path)["spec"]["versions"] for _ in nodes(version)) > 20


def _version(crd: Schema) -> Schema:
    version: Schema = crd["spec"]["versions"][0]
    return version


def _properties(crd: Schema, part: str) -> Schema:
    properties: Schema = _version(crd)["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
    return properties


def _add(part: str, name: str, schema: Schema) -> Callable[[Schema], None]:
    return lambda crd: _properties(crd, part).update({name: {"description": f"{name} is here.", **schema}})


def _set(part: str, name: str, key: str, value: Any) -> Callable[[Schema], None]:
    return lambda crd: _properties(crd, part)[name].update({key: value})


def _conditions_last(crd: Schema) -> None:
    status = _properties(crd, "status")
    status["conditions"] = status.pop("conditions")


def _rule_without_message(crd: Schema) -> None:
    _version(crd)["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = [{"rule": "true"}]


def _column(path: str) -> Callable[[Schema], None]:
    return lambda crd: _version(crd)["additionalPrinterColumns"].append({"name": "New", "type": "string", "jsonPath": path})


TEXT = {"type": "string", "maxLength": 9}
BREAKS: list[tuple[str, str, Callable[[Schema], None]]] = [
    ("no_phase", "status.phase", _add("status", "phase", TEXT)),
    ("conditions_first_in_status", "status.conditions", _conditions_last),
    ("conditions_first_in_status", "status.conditions", _set("status", "conditions", "x-kubernetes-list-map-keys", ["status"])),
    ("bounded", "spec.word", _add("spec", "word", {"type": "string"})),
    ("bounded", "spec.words", _add("spec", "words", {"type": "array", "x-kubernetes-list-type": "atomic", "items": TEXT})),
    ("bounded", "spec.map", _add("spec", "map", {"type": "object", "additionalProperties": TEXT})),
    ("bounded", "spec.map{}", _add("spec", "map", {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string"}})),
    ("bounded", "spec.number", _add("spec", "number", {"type": "integer", "minimum": 0})),
    ("bounded", "spec.number", _add("spec", "number", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1})),
    ("bounded", "spec.size", _add("spec", "size", {"x-kubernetes-int-or-string": True})),
    ("durations_are_seconds", "spec.readTimeout", _add("spec", "readTimeout", {"type": "integer", "minimum": 0, "maximum": 9})),
    ("durations_are_seconds", "spec.ttlSeconds", _add("spec", "ttlSeconds", TEXT)),
    ("times_are_named_so", "status.started", _add("status", "started", {"type": "string", "format": "date-time"})),
    ("times_are_named_so", "status.endTime", _add("status", "endTime", TEXT)),
    ("lists_say_how_they_merge", "spec.words", _add("spec", "words", {"type": "array", "maxItems": 2, "items": TEXT})),
    (
        "lists_say_how_they_merge",
        "spec.words",
        _add(
            "spec",
            "words",
            {
                "type": "array",
                "maxItems": 2,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"description": "name is one.", **TEXT}}},
            },
        ),
    ),
    ("described_by_name", "spec.word", _add("spec", "word", {"description": "The word.", **TEXT})),
    ("described_by_name", "spec.word", _add("spec", "word", {"description": "wordy, and more.", **TEXT})),
    ("no_defaults", "spec.word", _add("spec", "word", {"default": "a", **TEXT})),
    ("structural", "spec.any", _add("spec", "any", {"x-kubernetes-preserve-unknown-fields": True, "type": "object"})),
    ("structural", "spec.any", _add("spec", "any", {})),
    ("structural", "spec.any", _add("spec", "any", {"anyOf": [{"type": "string"}, {"type": "integer"}], **TEXT})),
    ("required_fields_exist", "spec.one", _add("spec", "one", {"type": "object", "required": ["other"]})),
    ("names_are_camel_case", "spec.snake_case", _add("spec", "snake_case", TEXT)),
    ("rules_have_messages", "", _rule_without_message),
    ("status_is_a_subresource", "status", lambda crd: _version(crd).pop("subresources")),
    ("columns_find_conditions_by_type", "New", _column(".status.conditions[-1:].type")),
    ("columns_find_conditions_by_type", "New", _column(".status.conditions[0].type")),
    ("columns_find_conditions_by_type", "Age", lambda crd: _version(crd).update(additionalPrinterColumns=[])),
]


class TestTheLinter:
    @pytest.mark.parametrize(
        ("rule", "path", "spoil"), BREAKS, ids=[f"{rule}-{path}-{index}" for index, (rule, path, _) in enumerate(BREAKS)]
    )
    def test_notices_a_broken_rule_and_nothing_else(self, rule: str, path: str, spoil: Callable[[Schema], None]) -> None:
        crd = copy.deepcopy(_read(CRDS[-1]))
        spoil(crd)
        assert lint(crd) == [Finding(rule, path)]

    def test_every_rule_is_broken_once(self) -> None:
        assert {rule for rule, _, _ in BREAKS} == {rule.__name__ for rule in RULES}
