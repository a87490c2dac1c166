"""The three CustomResourceDefinitions, from the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shield_operator.api.ingestjob import IngestJob
from shield_operator.api.ingestschedule import IngestSchedule
from shield_operator.api.knowledgebase import KnowledgeBase
from shield_operator.api.meta import Resource
from shield_operator.manifests.schema import structural
from shield_operator.names import GROUP, VERSION

_STANDARD: dict[str, Any] = {
    "apiVersion": {"description": "apiVersion is the version of this kind's schema.", "type": "string"},
    "kind": {"description": "kind is the object's type.", "type": "string"},
    "metadata": {"type": "object"},
}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    """JSONPath into the object; of several results, Kubernetes prints the first."""
    type: str = "string"
    wide: bool = False
    """Only with `-o wide`."""
    description: str = ""

    def schema(self) -> dict[str, Any]:
        """As the CRD has it."""
        item: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            item["description"] = self.description
        return item | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True)
class Kind:
    """What a CRD says besides its schema."""

    model: type[Resource]
    short_name: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    """Fields that `--field-selector` and watches can filter by."""

    @property
    def name(self) -> str:
        """The kind's name."""
        return self.model.__name__

    @property
    def crd_name(self) -> str:
        """The name of its CRD."""
        return f"{self.model.plural}.{GROUP}"


def condition(type_: str, field: str) -> str:
    """Path of a field of the condition of this type, wherever it stands in the list."""
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        IngestJob,
        "ij",
        (
            Column(
                "State",
                condition("Complete", "reason"),
                description="How it stands: Pending, Running, Suspended, Completed, or why it failed.",
            ),
            Column("Base", ".spec.knowledgeBase", description="The KnowledgeBase that the content goes to."),
            Column("Stage", ".status.progress.stage", description="What it does now."),
            Column("Fetched", ".status.progress.pagesFetched", "integer", description="Pages requested."),
            Column("Found", ".status.progress.pagesFound", "integer", description="Pages known so far."),
            Column("Documents", ".status.progress.documents", "integer", description="Documents stored."),
            Column("Failed", ".status.progress.failed", "integer", description="Documents and pages that failed."),
            AGE,
            Column("Chunks", ".status.progress.chunks", "integer", wide=True, description="Passages stored."),
            Column("Attempts", ".status.attempts", "integer", wide=True, description="Jobs made for it, and pods that failed in them."),
            Column("Started", ".status.startTime", "date", wide=True),
            Column("Finished", ".status.completionTime", "date", wide=True),
            Column("Job", ".status.jobName", wide=True, description="The Job that runs it now, or ran it last."),
            Column("Message", condition("Complete", "message"), wide=True),
        ),
        selectable=(".spec.knowledgeBase",),
    ),
    Kind(
        IngestSchedule,
        "ijs",
        (
            Column("Schedule", ".spec.schedule"),
            Column("Time Zone", ".spec.timeZone"),
            Column("Suspend", ".spec.suspend", "boolean"),
            Column("Active", ".status.active[*].name", description="A run that is going."),
            Column("Last Schedule", ".status.lastScheduleTime", "date"),
            Column("Last Success", ".status.lastSuccessfulTime", "date"),
            # A `date` is shown as time past, which a time to come is not.
            Column("Next Schedule", ".status.nextScheduleTime"),
            AGE,
            Column("Base", ".spec.ingestJobTemplate.spec.knowledgeBase", wide=True),
            Column("Ready", condition("Ready", "status"), wide=True),
            Column("Message", condition("Ready", "message"), wide=True),
        ),
    ),
    Kind(
        KnowledgeBase,
        "kb",
        (
            Column("Ready", condition("Ready", "status")),
            Column("Reason", condition("Ready", "reason")),
            Column("Documents", ".status.documents", "integer"),
            Column("Chunks", ".status.chunks", "integer"),
            Column("Model", ".status.activeEmbedding.model", description="The embedding model that it is searched by now."),
            Column("Reindexing", condition("Reindexing", "status")),
            AGE,
            Column("Deletion", ".spec.deletionPolicy", wide=True),
            Column("Name", ".status.knowledgeBase", wide=True, description="Its name in the orchestrator."),
            Column("Message", condition("Ready", "message"), wide=True),
        ),
    ),
)


def schema_of(kind: Kind) -> dict[str, Any]:
    """The structural schema of a kind."""
    schema = structural({**_without_metadata(kind.model.model_json_schema(by_alias=True))})
    schema["description"] = f"{kind.name}: {schema['description'][0].lower()}{schema['description'][1:]}"
    schema["properties"] = {**_STANDARD, **{name: schema["properties"][name] for name in ("spec", "status")}}
    schema["required"] = [name for name in schema.get("required", ()) if name == "spec"]
    return {key: value for key, value in schema.items() if value != []}


def _without_metadata(schema: dict[str, Any]) -> dict[str, Any]:
    """Kubernetes knows apiVersion, kind and metadata itself, and lets a CRD say nothing about them."""
    properties = {name: value for name, value in schema["properties"].items() if name not in _STANDARD}
    return {**schema, "properties": properties}


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [column.schema() for column in kind.columns],
        "schema": {"openAPIV3Schema": schema_of(kind)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "shield"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.model.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["shield"],
            },
            "versions": [version],
        },
    }
