"""What every Kubernetes object has, and conditions: the vocabulary that the three kinds share.

Specs are the user's: unknown fields are mistakes, nothing is ever written into them, and a default is applied only when they are read.
Statuses are ours: fields that a newer operator wrote are ignored. Attribute names are Python's, names in JSON are Kubernetes' camelCase;
`to_json` gives what is sent to the API server.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from shield_operator.api.rules import Rule, with_rules
from shield_operator.names import API_VERSION


def _whole_seconds(time: datetime) -> datetime:
    """As Kubernetes keeps times; equal times then compare equal after a round trip."""
    return time.astimezone(UTC).replace(microsecond=0)


Time = Annotated[AwareDatetime, AfterValidator(_whole_seconds)]


class Shape(BaseModel):
    """Base of all shapes: immutable, camelCase in JSON, described by its docstrings, checked by its `rules`."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold of the whole object."""

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        schema.update(with_rules(schema, cls.rules))
        return schema

    def to_json(self) -> dict[str, Any]:
        """What was set, as the API server takes it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


class Given(Shape):
    """Base of what users write: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid")


class OwnerReference(Shape):
    """Whose child an object is."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Shape):
    """The part of an object's metadata that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def deleting(self) -> bool:
        """Somebody deleted it; it may be kept for a while by a finalizer."""
        return self.deletion_timestamp is not None

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that controls it."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class Resource(Shape):
    """Base of the three kinds."""

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta

    plural: ClassVar[str]
    """As in the API's paths."""

    def as_owner(self) -> OwnerReference:
        """The reference that makes a child ours, to be collected with this object."""
        meta = self.metadata
        return OwnerReference(
            api_version=self.api_version, kind=self.kind, name=meta.name, uid=meta.uid, controller=True, block_owner_deletion=True
        )


class ConditionStatus(StrEnum):
    """Three-valued truth."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Shape):
    """One aspect of an object's state, as all of Kubernetes writes it."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=316, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """type names the aspect."""
    status: ConditionStatus
    """status is True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """observedGeneration is the generation of the spec that this was said about."""
    last_transition_time: Time
    """lastTransitionTime is when status changed last."""
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """reason says why in one CamelCase word."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """message says why in a sentence."""

    @property
    def true(self) -> bool:
        """It holds."""
        return self.status is ConditionStatus.TRUE


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type, if it was ever set."""
    return next((condition for condition in conditions if condition.type == type_), None)


def with_condition(conditions: Iterable[Condition], new: Condition) -> tuple[Condition, ...]:
    """The conditions with this one set: the others stay in place, and a status that did not change keeps its transition time."""
    kept = tuple(conditions)
    old = find(kept, new.type)
    if old is None:
        return (*kept, new)
    if old.status is new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if condition.type == new.type else condition for condition in kept)
