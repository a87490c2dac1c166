"""From pydantic's schema to a structural one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from shield_operator.api.meta import Given, Shape, Time
from shield_operator.api.rules import Rule
from shield_operator.manifests.schema import NotStructural, structural


class Colour(StrEnum):
    RED = "red"


class Part(Given):
    """A part."""

    rules = (Rule("self.number > 0", "one"),)
    number: Annotated[int, Field(ge=0, le=9)]


class Whole(Given):
    """A whole."""

    part: Annotated[Part, Rule("true", "two")]
    """part is described where it is used."""
    maybe: Part | None = None
    colour: Colour = Colour.RED
    kind: Literal["Whole"] = "Whole"
    parts: tuple[Part, ...] = ()
    names: dict[str, Annotated[str, Field(max_length=5)]] | None = None
    big: int = 0
    at: Time | None = None
    size: Annotated[str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})] = 0


@pytest.fixture(scope="module")
def fields() -> dict[str, Any]:
    properties: dict[str, Any] = structural(Whole.model_json_schema())["properties"]
    return properties


class TestStructural:
    def test_references_are_written_out_and_the_nearer_description_wins(self, fields: dict[str, Any]) -> None:
        assert fields["part"]["description"] == "part is described where it is used."
        assert fields["part"]["properties"] == {"number": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9}}

    def test_rules_of_a_model_and_of_its_use_are_both_there(self, fields: dict[str, Any]) -> None:
        assert [rule["message"] for rule in fields["part"]["x-kubernetes-validations"]] == ["one", "two"]
        assert [rule["message"] for rule in fields["maybe"]["x-kubernetes-validations"]] == ["one"]

    def test_what_may_be_null_is_an_optional_field(self, fields: dict[str, Any]) -> None:
        assert fields["maybe"]["type"] == "object"
        assert fields["at"] == {"type": "string", "format": "date-time"}
        assert structural(Whole.model_json_schema())["required"] == ["part"]

    def test_defaults_titles_and_closed_objects_are_gone(self) -> None:
        text = str(structural(Whole.model_json_schema()))
        assert not any(f"'{word}'" in text for word in ("default", "title", "$ref", "anyOf"))
        assert "'additionalProperties': False" not in text

    def test_enums_constants_lists_and_maps(self, fields: dict[str, Any]) -> None:
        assert fields["colour"]["enum"] == ["red"]
        assert fields["kind"]["enum"] == ["Whole"]
        assert fields["parts"]["items"]["type"] == "object"
        assert fields["names"]["additionalProperties"] == {"type": "string", "maxLength": 5}

    def test_unbounded_integers_are_wide(self, fields: dict[str, Any]) -> None:
        assert fields["big"]["format"] == "int64"

    def test_a_quantity_has_no_type(self, fields: dict[str, Any]) -> None:
        assert fields["size"] == {"x-kubernetes-int-or-string": True}

    def test_a_union_of_types_is_refused(self) -> None:
        class Either(Shape):
            value: str | int

        with pytest.raises(NotStructural, match=r"\$\.value: a union of 2 types"):
            structural(Either.model_json_schema())

    def test_a_keyword_that_a_crd_does_not_know_is_refused(self) -> None:
        class Odd(Shape):
            value: Annotated[int, Field(json_schema_extra={"contentEncoding": "x"})]

        with pytest.raises(NotStructural, match=r"\$\.value: contentEncoding"):
            structural(Odd.model_json_schema())
