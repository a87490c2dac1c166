"""Which connections a set of NetworkPolicies lets through: a small, pure evaluator of `networking.k8s.io/v1`.

The local cluster enforces none, so what the policies mean is judged here. A connection passes if the source's egress and the target's ingress allow it; a
pod that no policy of a direction selects is open in that direction; rules and policies add up. Named ports and protocols other than TCP and UDP are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Obj = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """An end of a connection inside the cluster."""

    namespace: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = "10.244.0.7"


@dataclass(frozen=True)
class Outside:
    """An end outside of it."""

    address: str


End = Pod | Outside


def allowed(policies: Iterable[Obj], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the connection passes."""
    known = list(policies)
    leaves = not isinstance(source, Pod) or _passes(known, source, target, port, protocol, "egress")
    enters = not isinstance(target, Pod) or _passes(known, target, source, port, protocol, "ingress")
    return leaves and enters


def _passes(policies: list[Obj], pod: Pod, other: End, port: int, protocol: str, direction: str) -> bool:
    applied = [one["spec"] for one in policies if _applies(one, pod, direction)]
    if not applied:
        return True
    side = "to" if direction == "egress" else "from"
    rules = [(spec, rule) for spec in applied for rule in spec.get(direction) or ()]
    return any(_port(rule, port, protocol) and _peer(rule.get(side), pod.namespace, other) for _, rule in rules)


def _applies(policy: Obj, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    kinds = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return (
        direction.capitalize() in kinds and policy["metadata"]["namespace"] == pod.namespace and _selects(spec["podSelector"], pod.labels)
    )


def _port(rule: Obj, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if not ports:
        return True
    return any(
        one.get("protocol", "TCP") == protocol and ("port" not in one or one["port"] <= port <= one.get("endPort", one["port"]))
        for one in ports
    )


def _peer(peers: list[Obj] | None, namespace: str, other: End) -> bool:
    if not peers:
        return True
    return any(_is(peer, namespace, other) for peer in peers)


def _is(peer: Obj, namespace: str, other: End) -> bool:
    if block := peer.get("ipBlock"):
        address = ip_address(other.address)
        inside = address in ip_network(block["cidr"])
        return inside and not any(address in ip_network(one) for one in block.get("except") or ())
    if not isinstance(other, Pod):
        return False
    if "namespaceSelector" in peer:
        if not _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}):
            return False
    elif other.namespace != namespace:
        return False
    return "podSelector" not in peer or _selects(peer["podSelector"], other.labels)


def _selects(selector: Obj, labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _expression(one: Obj, labels: Mapping[str, str]) -> bool:
    match one["operator"]:
        case "In":
            return labels.get(one["key"]) in one["values"]
        case "NotIn":
            return labels.get(one["key"]) not in one["values"]
        case "Exists":
            return one["key"] in labels
        case "DoesNotExist":
            return one["key"] not in labels
        case unknown:
            raise ValueError(f"operator {unknown}")
