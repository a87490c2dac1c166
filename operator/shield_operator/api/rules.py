"""One rule, written once and kept twice: by the API server as CEL, and by pydantic here.

A `Rule` beside a type (`Annotated[str, URL]`) or in a model's `rules` puts its CEL expression into the generated CRD, so that a wrong
object is refused before it is stored, and its Python form into the model, so that an object stored under an older CRD, or with validation
ratcheted, is still never acted upon. A rule about a change (`oldSelf`) has no Python form: only the API server sees both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
LIST_MAP_KEYS = "x-kubernetes-list-map-keys"


@dataclass(frozen=True)
class Rule:
    """What must hold of a value; `self` in CEL is the value itself."""

    cel: str
    """The API server's form."""
    message: str
    """What the user reads when it does not hold."""
    holds: Callable[[Any], bool] | None = None
    """The Python form, given the parsed value; None for a rule about a change."""
    field: str = ""
    """Child of the object that is to blame: a JSON path such as `.source`."""

    def schema(self) -> dict[str, str]:
        """The rule as an item of `x-kubernetes-validations`."""
        item = {"rule": self.cel, "message": self.message}
        return item | ({"fieldPath": self.field} if self.field else {})

    def check(self, value: Any) -> Any:
        """The value itself.

        Raises:
            PydanticCustomError: the rule does not hold.
        """
        if self.holds is not None and not self.holds(value):
            raise PydanticCustomError("rule", "{message}", {"message": self.message})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return with_rules(handler(core), (self,))


def with_rules(schema: dict[str, Any], rules: tuple[Rule, ...]) -> dict[str, Any]:
    """The schema with more rules; a rule that it has already stays single."""
    known = list(schema.get(VALIDATIONS, ()))
    known += [item for rule in rules if (item := rule.schema()) not in known]
    return {**schema, VALIDATIONS: known} if known else schema


class ListType(StrEnum):
    """How server-side apply merges a list, as an annotation of the list's type."""

    ATOMIC = "atomic"
    SET = "set"

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), LIST_TYPE: self.value}


@dataclass(frozen=True)
class MapOf:
    """Annotation of a list whose items are told apart by some of their fields."""

    keys: tuple[str, ...]
    """Names as in JSON."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), LIST_TYPE: "map", LIST_MAP_KEYS: list(self.keys)}


def matches(pattern: str, message: str) -> Rule:
    """A text must contain a match of the pattern, which RE2 and Python read alike (no look-around, no back-references)."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches({quoted(pattern)})", message, holds=lambda text: compiled.search(text) is not None)


def immutable(field: str, why: str = "create a new object instead") -> Rule:
    """An object's field must stay as it was made: present or absent, and equal."""
    return Rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} cannot be changed: {why}",
        field=f".{field}",
    )


def exactly_one(*fields: str) -> Rule:
    """An object must have exactly one of these fields (JSON names; the model's attributes are their snake_case)."""
    names = [re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), field) for field in fields]
    return Rule(
        f"[{', '.join(f'has(self.{field})' for field in fields)}].exists_one(given, given)",
        f"exactly one of {', '.join(fields)} must be given",
        holds=lambda model: sum(getattr(model, name) is not None for name in names) == 1,
    )


def keys_do_not_start_with(prefixes: tuple[str, ...], message: str) -> Rule:
    """No key of a map may start with one of these."""
    literals = ", ".join(quoted(prefix) for prefix in prefixes)
    return Rule(
        f"!self.exists(key, [{literals}].exists(prefix, key.startsWith(prefix)))",
        message,
        holds=lambda mapping: not any(key.startswith(prefixes) for key in mapping),
    )


def quoted(text: str) -> str:
    """A CEL literal of the text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
