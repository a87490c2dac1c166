"""KnowledgeBase: what is known, by one embedding model, and what becomes of it when the object is deleted."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from shield_operator.api.common import Count, name_rule
from shield_operator.api.ingestjob import MAX_NAME
from shield_operator.api.meta import Condition, Given, Resource, Shape, Time
from shield_operator.api.rules import MapOf, Rule
from shield_operator.names import GROUP

DELETE_FINALIZER = f"{GROUP}/delete-knowledge"
"""On a KnowledgeBase with deletionPolicy Delete, until its knowledge is proven gone."""


class DeletionPolicy(StrEnum):
    """What becomes of the knowledge when the object is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Embedding(Given):
    """What makes vectors of texts."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """model is the model's name, as the orchestrator's settings have it."""
    dimension: Annotated[int, Field(ge=8, le=8192)]
    """dimension is the length of its vectors."""


class KnowledgeBaseSpec(Given):
    """What the user wants."""

    description: Annotated[str, StringConstraints(max_length=2000)] | None = None
    """description says what is in it; agents read it to choose."""
    graph: bool = True
    """graph extracts entities and relations, too. Cannot be changed. Default: true."""
    embedding: Embedding | None = None
    """embedding is the model that it is searched by; a change moves it to a new collection while the old one answers. Default: the orchestrator's."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """deletionPolicy says what becomes of the knowledge when this object is deleted: Retain it, or Delete it and prove it. Default: Retain."""


GRAPH_IMMUTABLE = Rule(
    "(has(self.graph) ? self.graph : true) == (has(oldSelf.graph) ? oldSelf.graph : true)",
    "graph cannot be changed: create a new object instead",
    field=".graph",
)


class KnowledgeBaseCondition(StrEnum):
    """The conditions of a KnowledgeBase; all are set at first sight."""

    READY = "Ready"
    REINDEXING = "Reindexing"


class ActiveEmbedding(Shape):
    """What it is searched by now."""

    model: Annotated[str, StringConstraints(max_length=200)]
    """model is the model's name."""
    dimension: Annotated[int, Field(ge=1, le=65_536)]
    """dimension is the length of its vectors."""


class KnowledgeBaseStatus(Shape):
    """What is. Written by the operator alone."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=8), MapOf(("type",))] = ()
    """conditions are Ready and Reindexing."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """observedGeneration is the generation of the spec that this status is about."""
    knowledge_base: Annotated[str, StringConstraints(max_length=64)] | None = None
    """knowledgeBase is its name in the orchestrator, over REST and MCP."""
    active_embedding: ActiveEmbedding | None = None
    """activeEmbedding is what it is searched by now."""
    documents: Count | None = None
    """documents counts the documents in it."""
    chunks: Count | None = None
    """chunks counts the passages in it."""
    last_updated_time: Time | None = None
    """lastUpdatedTime is when these numbers were read."""


class KnowledgeBase(Resource):
    """What is known, and by which embedding model it is searched."""

    plural: ClassVar[str] = "knowledgebases"
    rules: ClassVar[tuple[Rule, ...]] = (name_rule(MAX_NAME, "IngestJobs name it"),)

    kind: Literal["KnowledgeBase"] = "KnowledgeBase"
    spec: Annotated[KnowledgeBaseSpec, GRAPH_IMMUTABLE] = KnowledgeBaseSpec()
    """spec says how it is built, and what becomes of it when this object is deleted."""
    status: KnowledgeBaseStatus = KnowledgeBaseStatus()
    """status is what is, written by the operator."""
