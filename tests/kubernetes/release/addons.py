"""What a cluster has beside Shield: a gateway, Prometheus with its operator, metrics for autoscaling, Flagger.

Their programs are built by `kind`, as the cluster's own are, and become images of one file each in the cluster's registry. `ensure` may be called
again; it returns when what it brought answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from kind.binaries import directory
from kind.catalogue import FLAGGER, GATEWAY_API, METRICS_SERVER, PROMETHEUS, PROMETHEUS_OPERATOR, TRAEFIK, Tool
from kind.images import push_program
from kind.kubectl import Kubectl
from kind.waiting import until

MANIFESTS = Path(__file__).parent / "manifests"
GATEWAY, MONITORING, SYSTEM = "gateway", "monitoring", "kube-system"
Obj = dict[str, Any]


class Addons:
    """Brings them to one cluster."""

    def __init__(self, kubectl: Kubectl, registry: str) -> None:
        """`registry`: the cluster's, as host and port."""
        self._kubectl = kubectl
        self._registry = registry

    def gateway(self) -> str:
        """Traefik and a Gateway `public` in the namespace `gateway`; returns its address, as this machine reaches it."""
        self._apply(_files(GATEWAY_API, "*.yaml"))
        self._established("httproutes.gateway.networking.k8s.io")
        image = self._image(TRAEFIK, "traefik")
        self._apply(_placed(_manifest("traefik.yaml"), {"traefik": image}))
        self._rolled_out(GATEWAY, "deployment/traefik")
        self._kubectl.run("wait", "-n", GATEWAY, "gateway/public", "--for=condition=Programmed", "--timeout=60s", timeout=70)
        return f"http://{self._address(GATEWAY, 'traefik')}:8000"

    def prometheus(self) -> str:
        """The Prometheus operator and a Prometheus that takes every ServiceMonitor and PrometheusRule; returns its address."""
        files = sorted(directory(PROMETHEUS_OPERATOR).glob("monitoring.coreos.com_*.yaml"))
        named = [word for file in files for word in ("-f", str(file))]  # by kubectl: PyYAML does not read the `=` in one of them
        self._kubectl.run("apply", "--server-side", "--force-conflicts", "--field-manager=addons", *named, timeout=120)
        self._established("servicemonitors.monitoring.coreos.com")
        self._namespace(MONITORING)
        images = {
            "quay.io/prometheus-operator/prometheus-operator": self._image(PROMETHEUS_OPERATOR, "operator", "prometheus-operator"),
            "quay.io/prometheus-operator/prometheus-config-reloader": self._image(
                PROMETHEUS_OPERATOR, "prometheus-config-reloader", "prometheus-config-reloader", path="bin/prometheus-config-reloader"
            ),
        }
        self._apply(_moved(_placed(_files(PROMETHEUS_OPERATOR, "prometheus-operator-[cds]*.yaml"), images), MONITORING))
        self._rolled_out(MONITORING, "deployment/prometheus-operator")
        prometheus = list(_manifest("prometheus.yaml"))
        for item in prometheus:
            if item["kind"] == "Prometheus":
                item["spec"] |= {"image": self._image(PROMETHEUS, "prometheus", path="bin/prometheus"), "version": "v3.16.0"}
        self._apply(prometheus)
        until(
            "Prometheus has a pod",
            lambda: "prometheus-main-0" in self._kubectl.run("get", "pods", "-n", MONITORING, "-o", "name"),
            limit=60,
        )
        self._rolled_out(MONITORING, "statefulset/prometheus-main")
        url = f"http://{self._address(MONITORING, 'prometheus')}:9090"
        until("Prometheus answers", lambda: _ready(f"{url}/-/ready"), limit=60)
        return url

    def metrics(self) -> None:
        """metrics-server, which the HorizontalPodAutoscaler asks."""
        image = self._image(METRICS_SERVER, "metrics-server")
        objects = [*_placed(_files(METRICS_SERVER, "[adrs]*.yaml"), {"gcr.io/k8s-staging-metrics-server/metrics-server": image})]
        for item in objects:
            item["metadata"].setdefault("labels", {})["k8s-app"] = "metrics-server"
            if item["kind"] == "Deployment":
                template = item["spec"]["template"]
                template.setdefault("metadata", {})["labels"] = {"k8s-app": "metrics-server"}
                item["spec"]["selector"] = {"matchLabels": {"k8s-app": "metrics-server"}}
                template["spec"]["containers"][0]["args"].append("--kubelet-insecure-tls")  # the kubelet signs its own certificate here
            elif item["kind"] == "Service":
                item["spec"]["selector"] = {"k8s-app": "metrics-server"}
        self._apply(objects)
        self._rolled_out(SYSTEM, "deployment/metrics-server")
        until("metrics are served", self._metrics_served, limit=120, pause=1)

    def flagger(self, prometheus: str) -> None:
        """Flagger for Gateway API, beside Prometheus."""
        self._namespace(MONITORING)
        image = self._image(FLAGGER, "flagger")
        objects = _moved(_placed(_files(FLAGGER, "*.yaml"), {"ghcr.io/fluxcd/flagger": image}), MONITORING)
        for item in objects:
            if item["kind"] == "Deployment":
                [container] = item["spec"]["template"]["spec"]["containers"]
                container["command"] = ["/flagger", "-log-level=info", "-mesh-provider=gatewayapi:v1", f"-metrics-server={prometheus}"]
                probe = {"httpGet": {"path": "/healthz", "port": 8080}, "timeoutSeconds": 5}
                container |= {"livenessProbe": probe, "readinessProbe": probe}  # its image's own have a wget; ours is one file
        self._apply(objects)
        self._rolled_out(MONITORING, "deployment/flagger")

    def _image(self, tool: Tool, program: str, name: str = "", *, path: str | None = None) -> str:
        name = name or program
        push_program(self._registry, name, "built", directory(tool) / program, path=path)
        return f"{self._registry}/{name}:built"

    def _apply(self, objects: Iterable[Obj]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self._kubectl.run("apply", "--server-side", "--force-conflicts", "--field-manager=addons", "-f", "-", input=text, timeout=120)

    def _namespace(self, name: str) -> None:
        self._apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])

    def _established(self, crd: str) -> None:
        def established() -> bool:  # `kubectl wait` gives up where there are no conditions yet
            conditions = self._kubectl.get("crd", crd).get("status", {}).get("conditions") or ()
            return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

        until(f"{crd} is served", established, limit=60)

    def _rolled_out(self, namespace: str, target: str) -> None:
        self._kubectl.run("rollout", "status", "-n", namespace, target, "--timeout=180s", timeout=190)

    def _address(self, namespace: str, service: str) -> str:
        return self._kubectl.run("get", "-n", namespace, "service", service, "-o", "jsonpath={.spec.clusterIP}")

    def _metrics_served(self) -> bool:
        found = self._kubectl.get("apiservice", "v1beta1.metrics.k8s.io")
        return any(one["type"] == "Available" and one["status"] == "True" for one in found.get("status", {}).get("conditions", ()))


def _manifest(name: str) -> Iterator[Obj]:
    yield from yaml.safe_load_all((MANIFESTS / name).read_text(encoding="utf-8"))


def _files(tool: Tool, pattern: str) -> Iterator[Obj]:
    """Objects of a tool's own manifests."""
    for file in sorted(directory(tool).glob(pattern)):
        for item in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if item and item["kind"] not in {"Kustomization", "ServiceMonitor"}:
                yield item


def _placed(objects: Iterable[Obj], images: dict[str, str]) -> Iterator[Obj]:
    """With images of this cluster's registry, wherever their public names (without tag) stand."""
    for item in objects:
        for container in item.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            container["image"] = images[container["image"].rpartition(":")[0] or container["image"]]
            container["args"] = [_replaced(argument, images) for argument in container.get("args", ())]
        yield item


def _replaced(argument: str, images: dict[str, str]) -> str:
    flag, equals, value = argument.partition("=")
    return f"{flag}={images[value.rpartition(':')[0]]}" if equals and value.rpartition(":")[0] in images else argument


def _moved(objects: Iterable[Obj], namespace: str) -> list[Obj]:
    """From the namespace `default` or `flagger-system` of a public manifest to another."""
    moved = []
    for item in objects:
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
        for subject in item.get("subjects", ()):
            subject["namespace"] = namespace
        moved.append(item)
    return moved


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
