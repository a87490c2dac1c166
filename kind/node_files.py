"""Configuration of the node's components, as text and data; paths are those inside the cluster's namespaces (`/run/shield`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from kind.addresses import Addresses
from kind.node import INSIDE, SOCKETS

NODE_NAME = "node1"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
CONTAINERD_SOCKET = SOCKETS / "containerd.sock"
DNS_PORT = 5353
DNS_READY_PORT = 8181


def containerd(*, runc: str, cni: Path) -> str:
    """`containerd.toml`: pods on runc, control groups without systemd, and images from the local registry only."""
    return f"""version = 3
root = "{INSIDE}/containerd"
state = "{SOCKETS}/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{INSIDE}/config/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{INSIDE}/config/cni"
"""


def registry_hosts(addresses: Addresses) -> str:
    """`hosts.toml`: whatever a name's registry is, the image comes from the cluster's own."""
    url = f"http://{addresses.registry}"
    return f'server = "{url}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'


def registry(addresses: Addresses) -> str:
    """The registry's configuration."""
    return yaml.safe_dump(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": f"{INSIDE}/registry"}, "delete": {"enabled": True}},
            "http": {"addr": addresses.registry},
        }
    )


def cni(addresses: Addresses) -> str:
    """The pods' network: a bridge. It enforces no NetworkPolicy."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "shield",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods",
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(SOCKETS / "cni"),
                        "ranges": [[{"subnet": addresses.pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        indent=2,
    )


def kubelet(addresses: Addresses, *, cgroup: str) -> str:
    """KubeletConfiguration."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": addresses.node,
            "healthzBindAddress": "127.0.0.1",
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{INSIDE}/pki/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{INSIDE}/pki/kubelet.crt",
            "tlsPrivateKeyFile": f"{INSIDE}/pki/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDomain": "cluster.local",
            "clusterDNS": [addresses.dns_service],
            "resolvConf": f"{INSIDE}/config/resolv.conf",
            "podLogsDir": f"{INSIDE}/pod-logs",
            "volumePluginDir": f"{INSIDE}/volume-plugins",
            "serializeImagePulls": False,
            "imageGCHighThresholdPercent": 99,
            "imageGCLowThresholdPercent": 98,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
        }
    )


def kube_proxy(addresses: Addresses) -> str:
    """KubeProxyConfiguration: iptables, and hands off the machine's connection tracking."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "bindAddress": addresses.node,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "hostnameOverride": NODE_NAME,
            "clientConnection": {"kubeconfig": f"{INSIDE}/kube-proxy.conf"},
            "mode": "iptables",
            "nodePortAddresses": ["primary"],
            "clusterCIDR": addresses.pods,
            "linux": {
                "oomScoreAdj": 0,
                "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            },
        }
    )


def coredns(addresses: Addresses) -> str:
    """Corefile: the cluster's names; every other name does not exist."""
    return f"""cluster.local:{DNS_PORT} in-addr.arpa:{DNS_PORT} {{
    bind {addresses.node}
    errors
    ready {addresses.node}:{DNS_READY_PORT}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {INSIDE}/coredns.conf
        ttl 5
    }}
}}
.:{DNS_PORT} {{
    bind {addresses.node}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def manifests(addresses: Addresses) -> str:
    """What is applied to every new cluster: DNS (a process of the node) as a service, and its right to read names."""
    reading = [{"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]}]
    reading.append({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]})
    ports = [
        {"name": name, "port": 53, "targetPort": DNS_PORT, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    system = {"name": "kube-dns", "namespace": "kube-system"}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"}, "rules": reading},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": system, "spec": {"clusterIP": addresses.dns_service, "ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**system, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [addresses.node], "conditions": {"ready": True}}],
            "ports": [{"name": port["name"], "port": DNS_PORT, "protocol": port["protocol"]} for port in ports],
        },
    ]
    return yaml.safe_dump_all(objects, sort_keys=False)
