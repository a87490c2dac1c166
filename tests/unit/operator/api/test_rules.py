"""Rules in their two forms: what of them can be checked without an API server."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from shield_operator.api.meta import Given
from shield_operator.api.rules import (
    LIST_MAP_KEYS,
    LIST_TYPE,
    VALIDATIONS,
    ListType,
    MapOf,
    Rule,
    exactly_one,
    immutable,
    keys_do_not_start_with,
    matches,
    quoted,
    with_rules,
)

EVEN = Rule("self % 2 == 0", "must be even", holds=lambda number: number % 2 == 0)


def schema_of(type_: Any) -> dict[str, Any]:
    return TypeAdapter(type_).json_schema()


class TestARuleBesideAType:
    def test_is_kept_by_python(self) -> None:
        even: TypeAdapter[int] = TypeAdapter(Annotated[int, EVEN])
        assert even.validate_python(2) == 2
        with pytest.raises(ValidationError, match="must be even"):
            even.validate_python(3)

    def test_is_in_the_schema_as_cel(self) -> None:
        assert schema_of(Annotated[int, EVEN]) == {"type": "integer", VALIDATIONS: [{"rule": "self % 2 == 0", "message": "must be even"}]}

    def test_several_are_all_there_once(self) -> None:
        schema = schema_of(Annotated[int, EVEN, EVEN, Rule("self > 0", "must be positive")])
        assert [rule["message"] for rule in schema[VALIDATIONS]] == ["must be even", "must be positive"]

    def test_a_message_with_braces_is_shown_as_it_is(self) -> None:
        with pytest.raises(ValidationError, match=r"must be \{a\}"):
            TypeAdapter(Annotated[int, Rule("false", "must be {a}", holds=lambda _: False)]).validate_python(1)


class TestARuleOfAModel:
    class Pair(Given):
        rules = (exactly_one("leftHand", "right"),)
        left_hand: str | None = None
        right: str | None = None

    def test_is_kept_by_python(self) -> None:
        assert self.Pair(left_hand="a").left_hand == "a"
        with pytest.raises(ValidationError, match="exactly one of leftHand, right must be given"):
            self.Pair()
        with pytest.raises(ValidationError, match="exactly one of leftHand, right must be given"):
            self.Pair(left_hand="a", right="b")

    def test_is_in_the_schema_as_cel(self) -> None:
        (rule,) = self.Pair.model_json_schema()[VALIDATIONS]
        assert rule["rule"] == "[has(self.leftHand), has(self.right)].exists_one(given, given)"


def test_a_rule_about_a_change_lets_every_single_object_pass() -> None:
    rule = immutable("source")
    assert rule.check("anything") == "anything"
    assert rule.schema()["fieldPath"] == ".source"
    assert "has(self.source) == has(oldSelf.source)" in rule.cel


def test_keys_with_a_reserved_beginning_are_refused() -> None:
    rule = keys_do_not_start_with(("a.example/", "b"), "reserved")
    labels: TypeAdapter[dict[str, str]] = TypeAdapter(Annotated[dict[str, str], rule])
    assert labels.validate_python({"a.example": "x", "c": "y"}) == {"a.example": "x", "c": "y"}
    for key in ("a.example/x", "b", "bc"):
        with pytest.raises(ValidationError, match="reserved"):
            labels.validate_python({key: "x"})


def test_a_pattern_is_written_as_a_cel_literal() -> None:
    assert quoted(r"it's \d") == r"'it\'s \\d'"
    assert matches(r"^\d$", "a digit").cel == r"self.matches('^\\d$')"


def test_lists_say_how_they_merge() -> None:
    assert schema_of(Annotated[list[str], ListType.SET])[LIST_TYPE] == "set"
    schema = schema_of(Annotated[list[str], MapOf(("a", "b"))])
    assert (schema[LIST_TYPE], schema[LIST_MAP_KEYS]) == ("map", ["a", "b"])


def test_no_rules_leave_the_schema_as_it_is() -> None:
    assert with_rules({"type": "string"}, ()) == {"type": "string"}
