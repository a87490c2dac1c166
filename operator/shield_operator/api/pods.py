"""The part of a pod that an IngestJob's author may shape: where it runs and how much it may use, nothing else.

Everything is spelled out, field by field, rather than left open (`x-kubernetes-preserve-unknown-fields`): what is not here (volumes, env,
ServiceAccount, securityContext, ...) is refused by the API server under strict validation and dropped under any other, and `kubectl explain`
knows what is. Scheduling fields have Kubernetes' own names and meanings.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from shield_operator.api.meta import Given
from shield_operator.api.rules import ListType, MapOf, Rule, keys_do_not_start_with, quoted

_QUANTITY = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
_COMPUTE = ("cpu", "memory", "ephemeral-storage")

RESERVED_PREFIXES = (
    # what the operator and Kubernetes' own controllers write and select by
    "shield.hx-citadel.io/", "app.kubernetes.io/", "batch.kubernetes.io/", "pod-template-hash", "job-name", "controller-uid",
    "kueue.x-k8s.io/", "kubernetes.io/", "scheduler.alpha.kubernetes.io/",
    # what loosens a pod's security profile
    "container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/",
    # what widespread webhooks and agents answer with an identity, a secret or another network
    "iam.amazonaws.com/", "eks.amazonaws.com/", "azure.workload.identity/", "aadpodidbinding", "iam.gke.io/", "vault.hashicorp.com/",
    "k8s.v1.cni.cncf.io/", "v1.multus-cni.io/",
)  # fmt: skip
"""Beginnings of label and annotation keys that a pod does not take from an IngestJob. docs/KUBERNETES.md says how to close the rest."""

_NOT_RESERVED = keys_do_not_start_with(
    RESERVED_PREFIXES, "a key is reserved: it belongs to Kubernetes or the operator, or can give a pod an identity, a secret or a network"
)

Key = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
Weight = Annotated[int, Field(ge=1, le=100)]
Quantity = Annotated[
    str | int,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 32}),
    Rule(
        f"type(self) == int ? self >= 0 : self.matches({quoted(_QUANTITY)})",
        "must be a quantity that is not negative, such as 500m, 2 or 4Gi",
        holds=lambda value: value >= 0 if isinstance(value, int) else len(value) <= 32 and bool(re.search(_QUANTITY, value)),
    ),
]
Compute = Annotated[
    dict[str, Quantity],
    Field(max_length=len(_COMPUTE)),
    Rule(
        f"self.all(key, key in [{', '.join(map(quoted, _COMPUTE))}])",
        "only cpu, memory and ephemeral-storage can be asked for",
        holds=lambda mapping: set(mapping) <= set(_COMPUTE),
    ),
]


class Resources(Given):
    """How much the pod may use; bounded by the operator's maximum."""

    requests: Compute | None = None
    """requests is what the pod is sure to get: cpu, memory, ephemeral-storage."""
    limits: Compute | None = None
    """limits is what the pod may use at most: cpu, memory, ephemeral-storage."""


class SelectorOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class NodeOperator(StrEnum):
    """How a node's label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class LabelRequirement(Given):
    """A condition on a label."""

    key: Key
    """key is the label's key."""
    operator: SelectorOperator
    """operator says how the label is compared with values."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32), ListType.ATOMIC] = ()
    """values to compare with; none for Exists and DoesNotExist."""


class LabelSelector(Given):
    """Objects by their labels; all conditions must hold."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """matchLabels are labels that must be exactly so."""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16), ListType.ATOMIC] = ()
    """matchExpressions are further conditions."""


class NodeRequirement(Given):
    """A condition on a node's label or field."""

    key: Key
    """key is the label's key, or the field's name."""
    operator: NodeOperator
    """operator says how it is compared with values."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64), ListType.ATOMIC] = ()
    """values to compare with; none for Exists and DoesNotExist, one number for Gt and Lt."""


class NodeSelectorTerm(Given):
    """Nodes that meet all of its conditions."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(max_length=16), ListType.ATOMIC] = ()
    """matchExpressions are conditions on the node's labels."""
    match_fields: Annotated[tuple[NodeRequirement, ...], Field(max_length=4), ListType.ATOMIC] = ()
    """matchFields are conditions on the node's fields: metadata.name."""


class NodeSelector(Given):
    """Nodes that meet one of the terms."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=8), ListType.ATOMIC]
    """nodeSelectorTerms are alternatives."""


class PreferredNodes(Given):
    """Nodes that are preferred."""

    weight: Weight
    """weight of the preference, 1 to 100."""
    preference: NodeSelectorTerm
    """preference says which nodes."""


class NodeAffinity(Given):
    """Nodes that the pod must or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """requiredDuringSchedulingIgnoredDuringExecution names the nodes that the pod must run on."""
    preferred_during_scheduling_ignored_during_execution: Annotated[tuple[PreferredNodes, ...], Field(max_length=8), ListType.ATOMIC] = ()
    """preferredDuringSchedulingIgnoredDuringExecution names nodes that are preferred."""


class PodAffinityTerm(Given):
    """Pods that this one should be near to, or far from."""

    topology_key: Key
    """topologyKey is the node label whose equal values mean the same place."""
    label_selector: LabelSelector | None = None
    """labelSelector says which pods."""
    namespace_selector: LabelSelector | None = None
    """namespaceSelector says in which namespaces; default: this one."""
    namespaces: Annotated[tuple[LabelValue, ...], Field(max_length=16), ListType.ATOMIC] = ()
    """namespaces says in which namespaces, by name."""
    match_label_keys: Annotated[tuple[Key, ...], Field(max_length=8), ListType.ATOMIC] = ()
    """matchLabelKeys are labels of this pod that those pods must share."""
    mismatch_label_keys: Annotated[tuple[Key, ...], Field(max_length=8), ListType.ATOMIC] = ()
    """mismatchLabelKeys are labels of this pod that those pods must not share."""


class WeightedPodAffinityTerm(Given):
    """A preference among places."""

    weight: Weight
    """weight of the preference, 1 to 100."""
    pod_affinity_term: PodAffinityTerm
    """podAffinityTerm says which pods."""


class PodAffinity(Given):
    """Pods that this one must or should be near to, or far from."""

    required_during_scheduling_ignored_during_execution: Annotated[tuple[PodAffinityTerm, ...], Field(max_length=8), ListType.ATOMIC] = ()
    """requiredDuringSchedulingIgnoredDuringExecution must hold where the pod runs."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[WeightedPodAffinityTerm, ...], Field(max_length=8), ListType.ATOMIC
    ] = ()
    """preferredDuringSchedulingIgnoredDuringExecution should hold where the pod runs."""


class Affinity(Given):
    """Where the pod runs, by nodes and by other pods."""

    node_affinity: NodeAffinity | None = None
    """nodeAffinity says on which nodes."""
    pod_affinity: PodAffinity | None = None
    """podAffinity says near to which pods."""
    pod_anti_affinity: PodAffinity | None = None
    """podAntiAffinity says far from which pods."""


class Toleration(Given):
    """A taint that does not keep the pod away from a node."""

    key: Key | None = None
    """key of the taint; none with operator Exists: any."""
    operator: Annotated[str, StringConstraints(max_length=16, pattern=r"^(Exists|Equal|Lt|Gt)$")] | None = None
    """operator is Equal (default), Exists, Lt or Gt."""
    value: LabelValue | None = None
    """value of the taint."""
    effect: Annotated[str, StringConstraints(max_length=32, pattern=r"^(NoSchedule|PreferNoSchedule|NoExecute)$")] | None = None
    """effect of the taint; none: any."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """tolerationSeconds is how long a NoExecute taint is tolerated; none: for ever."""


class TopologySpreadConstraint(Given):
    """How evenly pods are spread over places."""

    max_skew: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """maxSkew is by how many pods two places may differ."""
    topology_key: Key
    """topologyKey is the node label whose equal values mean the same place."""
    when_unsatisfiable: Annotated[str, StringConstraints(max_length=32, pattern=r"^(DoNotSchedule|ScheduleAnyway)$")]
    """whenUnsatisfiable is DoNotSchedule or ScheduleAnyway."""
    label_selector: LabelSelector | None = None
    """labelSelector says which pods are counted."""
    min_domains: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """minDomains is how many places there must be, with DoNotSchedule."""
    node_affinity_policy: Annotated[str, StringConstraints(max_length=16, pattern=r"^(Honor|Ignore)$")] | None = None
    """nodeAffinityPolicy is Honor (default) or Ignore."""
    node_taints_policy: Annotated[str, StringConstraints(max_length=16, pattern=r"^(Honor|Ignore)$")] | None = None
    """nodeTaintsPolicy is Honor or Ignore (default)."""
    match_label_keys: Annotated[tuple[Key, ...], Field(max_length=8), ListType.ATOMIC] = ()
    """matchLabelKeys are labels of this pod that the counted pods must share."""


class PodMetadata(Given):
    """Labels and annotations of the pod."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=16), _NOT_RESERVED] | None = None
    """labels of the pod; keys of Kubernetes, of the operator and of agents that hand out identities are refused."""
    annotations: Annotated[dict[str, Annotated[str, StringConstraints(max_length=256)]], Field(max_length=8), _NOT_RESERVED] | None = None
    """annotations of the pod; the same keys are refused."""


class PodTemplate(Given):
    """Where the pod runs and how much it may use. Nothing here gives it Secrets, volumes, code or an identity."""

    metadata: PodMetadata | None = None
    """metadata holds labels and annotations of the pod."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """nodeSelector names labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32), ListType.ATOMIC] = ()
    """tolerations name taints that do not keep the pod away."""
    affinity: Affinity | None = None
    """affinity says where the pod runs, by nodes and by other pods."""
    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...], Field(max_length=8), MapOf(("topologyKey", "whenUnsatisfiable"))
    ] = ()
    """topologySpreadConstraints say how evenly pods are spread over places."""
    priority_class_name: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=253),
            Rule(
                "!self.startsWith('system-')",
                "the system's own priorities cannot be taken",
                holds=lambda name: not name.startswith("system-"),
            ),
        ]
        | None
    ) = None
    """priorityClassName is the pod's PriorityClass."""
    resources: Resources | None = None
    """resources are what the pod may use; at most the operator's maximum."""
