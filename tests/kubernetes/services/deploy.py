"""The services, and Shield on them, in a namespace of a cluster: made with fresh random passwords, ready when `deploy` returns.

    with_services = deploy(kubectl, "shield-test", images={"shield-server": "10.250.0.1:5000/shield-server:0.2.0", ...})
    deployed.api_key()        # a new administrator's key

Every pod meets the Pod Security level `restricted`, which the namespace enforces. Passwords exist in the Secrets `test-passwords` (the services'),
`shield-services` (addresses with credentials, for whatever ingests) and `shield-auth` (the processes' own secret) only; they are sent to the API server
on standard input. A namespace that is deployed to again keeps its passwords.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

MANIFESTS = Path(__file__).parent / "manifests"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


class Kubectl(Protocol):
    """Runs kubectl against the cluster; the cluster tool's and the control plane's are of this shape."""

    def __call__(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002  as theirs
        """What it prints; raises when it fails or takes longer than `timeout` seconds."""


@dataclass(frozen=True)
class Deployed:
    """Shield in a namespace."""

    kubectl: Kubectl
    namespace: str
    api_address: str
    """ClusterIP of the orchestrator; its port is 8001."""
    mcp_address: str
    """ClusterIP of the MCP server; its port is 8000."""

    def api_key(self, *options: str) -> str:
        """A new API key; without options, an administrator's."""
        made = self.shield("keys", "create", "--json", *(options or ("--admin", "--name", "test")))
        return str(json.loads(made)["key"])

    def shield(self, *arguments: str, timeout: float = 120) -> str:
        """Run a `shield` command in the orchestrator's pod."""
        return self.kubectl("exec", "-n", self.namespace, "deploy/shield-api", "--", "shield", *arguments, timeout=timeout)

    def visits(self) -> list[str]:
        """Paths that the site was asked for so far, robots.txt included, in order."""
        code = "import sys, urllib.request as r; sys.stdout.write(r.urlopen('http://127.0.0.1:8080/-/visits', timeout=5).read().decode())"
        said = self.kubectl("exec", "-n", self.namespace, "deploy/site", "--", "python", "-c", code, timeout=60)
        return [str(path) for path in json.loads(said)]


def deploy(
    kubectl: Kubectl, namespace: str, *, images: Mapping[str, str], services_network: str = "10.96.0.0/16", within: int = 300
) -> Deployed:
    """Make the namespace, the services and Shield, and wait until all are ready.

    Args:
        kubectl: how to reach the cluster.
        namespace: made if it is missing.
        images: real names of `shield-server` and `shield-test-services`.
        services_network: where Services have their addresses; opened to the crawler for the test site, port 80.
        within: seconds for each of the two halves.
    """
    apply(kubectl, namespace, [_named("v1", "Namespace", namespace, labels=RESTRICTED)], namespaced=False)
    passwords = _passwords(kubectl, namespace)
    apply(kubectl, namespace, [*secret_objects(namespace, passwords), *read("services.yaml", images)])
    for name in ("postgres", "valkey", "qdrant", "site"):
        _rolled_out(kubectl, namespace, name, within)
    shield = list(read("shield.yaml", images))
    apply(kubectl, namespace, [item for item in shield if item["kind"] == "Service"])
    addresses = {
        name: kubectl("get", "-n", namespace, "service", name, "-o", "jsonpath={.spec.clusterIP}") for name in ("shield-api", "shield-mcp")
    }
    apply(kubectl, namespace, [config_object(namespace, addresses, services_network)])
    kubectl("delete", "-n", namespace, "job", "shield-migrate", "--ignore-not-found", timeout=60)
    apply(kubectl, namespace, shield)
    kubectl("wait", "-n", namespace, "--for=condition=Complete", "job/shield-migrate", f"--timeout={within}s", timeout=within + 10)
    for name in ("shield-api", "shield-mcp", "shield-worker"):
        _rolled_out(kubectl, namespace, name, within)
    return Deployed(kubectl, namespace, addresses["shield-api"], addresses["shield-mcp"])


def read(name: str, images: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The objects of a manifest, with real images.

    Raises:
        KeyError: a container's placeholder is not among `images`.
    """
    for item in yaml.safe_load_all((MANIFESTS / name).read_text(encoding="utf-8")):
        if "template" in item["spec"]:
            for container in item["spec"]["template"]["spec"]["containers"]:
                container["image"] = images[container["image"]]
        yield item


def apply(kubectl: Kubectl, namespace: str, objects: list[dict[str, Any]], *, namespaced: bool = True) -> None:
    """Server-side apply."""
    where = ["-n", namespace] if namespaced else []
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", *where, "--server-side", "--force-conflicts", "--field-manager=shield-tests", "-f", "-", input=text, timeout=60)


def secret_objects(namespace: str, passwords: Mapping[str, str]) -> list[dict[str, Any]]:
    """The three Secrets; addresses are full names, since pods of other namespaces use them too."""
    domain = f"{namespace}.svc.cluster.local"
    services = {
        "SHIELD_POSTGRES_DSN": f"postgresql://shield:{passwords['postgres']}@postgres.{domain}:5432/shield",
        "SHIELD_REDIS_URL": f"redis://:{passwords['valkey']}@valkey.{domain}:6379/0",
        "SHIELD_QDRANT_URL": f"http://qdrant.{domain}:6333",
        "SHIELD_QDRANT_API_KEY": passwords["qdrant"],
    }
    return [
        {**_named("v1", "Secret", "test-passwords"), "stringData": dict(passwords)},
        {**_named("v1", "Secret", "shield-services"), "stringData": services},
        {**_named("v1", "Secret", "shield-auth"), "stringData": {"SHIELD_AUTH_HOP_SECRET": passwords["hop"]}},
    ]


def config_object(namespace: str, addresses: Mapping[str, str], services_network: str) -> dict[str, Any]:
    """What is no secret: server mode, keys asked for, the names under which the servers are called, and the way to the test site."""
    names = [
        full
        for name, address in addresses.items()
        for full in (name, f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local", address)
    ]
    data = {
        "SHIELD_MODE": "server",
        "SHIELD_HOST": "0.0.0.0",
        "SHIELD_AUTH_MODE": "api-key",
        "SHIELD_ALLOWED_HOSTS": ",".join(names),
        "SHIELD_EGRESS_ALLOW": f"{services_network}:80",
        "SHIELD_CRAWL_PER_HOST_DELAY": "0",
    }
    return {**_named("v1", "ConfigMap", "shield-config"), "data": data}


def _passwords(kubectl: Kubectl, namespace: str) -> dict[str, str]:
    """Those of an earlier deployment, or new ones."""
    found = kubectl("get", "-n", namespace, "secret", "test-passwords", "--ignore-not-found", "-o", "json")
    if found.strip():
        return {name: base64.b64decode(value).decode() for name, value in json.loads(found)["data"].items()}
    return {name: secrets.token_hex(24) for name in ("postgres", "valkey", "qdrant", "hop")}


def _named(version: str, kind: str, name: str, *, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **({"labels": dict(labels)} if labels else {})}}


def _rolled_out(kubectl: Kubectl, namespace: str, name: str, within: int) -> None:
    kubectl("rollout", "status", "-n", namespace, f"deployment/{name}", f"--timeout={within}s", timeout=within + 10)
