"""The tools that are built, and how: each has a Go module of its own in `kind/tools/`, because their dependencies disagree.

A tool's version stands in its `go.mod` and nowhere else. What a build makes depends on that module's files and on the recipe
here; `Tool.key` is the hash of both, so a changed version or flag is a new build, and nothing else is.
"""

from __future__ import annotations

import hashlib
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

MODULES = Path(__file__).parent / "tools"


@dataclass(frozen=True)
class Tool:
    """Programs that are built together from one module."""

    name: str
    programs: dict[str, str]
    """Program name to import path, or `.` for the module's own."""
    module: str = ""
    """The upstream module whose version is the tool's."""
    tags: str = ""
    ldflags: str = ""
    data: tuple[str, ...] = ()
    """Files of the upstream module that are kept beside the programs: globs in its directory."""
    modules: Path = field(default=MODULES, compare=False)

    @property
    def directory(self) -> Path:
        """Where its module is committed."""
        return self.modules / self.name

    @property
    def version(self) -> str:
        """The upstream version, as `v1.2.3`; empty for a program of our own."""
        if not self.module:
            return ""
        found = re.search(
            rf"^(?:require )?\s*{re.escape(self.module)} (v\S+)", (self.directory / "go.mod").read_text(encoding="utf-8"), re.MULTILINE
        )
        if found is None:
            raise ValueError(f"{self.directory}/go.mod does not require {self.module}")
        return found[1]

    @property
    def key(self) -> str:
        """Names what a build of it makes: the same key, the same programs."""
        digest = hashlib.sha256()
        for path in sorted(self.directory.iterdir()):
            if path.name in ("go.mod", "go.sum") or path.suffix == ".go":
                digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        digest.update(repr((sorted(self.programs.items()), self.tags, self.ldflags, self.data, platform.machine())).encode())
        return digest.hexdigest()[:16]

    @property
    def linker_flags(self) -> str:
        """Flags for the linker: no symbols, and the version where upstream expects it from the linker."""
        major, _, minor = self.version.removeprefix("v").rpartition(".")[0].partition(".")
        return f"-s -w {self.ldflags.format(version=self.version, major=major, minor=minor)}".strip()


def _commands(
    name: str, module: str, programs: tuple[str, ...] = (), *, tags: str = "", ldflags: str = "", data: tuple[str, ...] = ()
) -> Tool:
    """A tool whose programs lie below `cmd/` in its module, as is the custom; without a list, one of its own name."""
    paths = {program: f"{module}/cmd/{program}" for program in programs or (name,)}
    return Tool(name, paths, module=module, tags=tags, ldflags=ldflags, data=data)


_KUBERNETES = "k8s.io/component-base/version"

KUBERNETES = _commands(
    "kubernetes",
    "k8s.io/kubernetes",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
    ldflags=f"-X {_KUBERNETES}.gitVersion={{version}} -X {_KUBERNETES}.gitMajor={{major}} -X {_KUBERNETES}.gitMinor={{minor}}",
)
ETCD = Tool("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, module="go.etcd.io/etcd/server/v3")
CONTAINERD = _commands(
    "containerd",
    "github.com/containerd/containerd/v2",
    ("containerd", "containerd-shim-runc-v2", "ctr"),
    tags="no_btrfs,no_devmapper,no_zfs",
    ldflags="-X github.com/containerd/containerd/v2/version.Version={version}",
)
CNI = Tool(
    "cni",
    {
        name: f"github.com/containernetworking/plugins/plugins/{kind}/{name}"
        for kind, name in (("main", "bridge"), ("main", "loopback"), ("ipam", "host-local"), ("meta", "portmap"))
    },
    module="github.com/containernetworking/plugins",
)
COREDNS = Tool("coredns", {"coredns": "github.com/coredns/coredns"}, module="github.com/coredns/coredns")
REGISTRY = Tool("registry", {"registry": "."}, module="github.com/distribution/distribution/v3")
PAUSE = Tool("pause", {"pause": "."})
HELM = _commands(
    "helm",
    "helm.sh/helm/v4",
    ldflags="-X helm.sh/helm/v4/internal/version.version={version}",
)
KWOK = _commands(
    "kwok",
    "sigs.k8s.io/kwok",
    data=(
        "kustomize/stage/node/fast/node-initialize.yaml",
        "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
        "kustomize/stage/pod/fast/pod-*.yaml",
    ),
)
PROMETHEUS = _commands(
    "prometheus",
    "github.com/prometheus/prometheus",
    ("prometheus", "promtool"),
    # Of its many ways to find targets one has a dependency that is no longer served, and pods are all we look for.
    tags="remove_all_sd,enable_kubernetes_sd",
    ldflags="-X github.com/prometheus/common/version.Version={version}",
)

HELM3 = Tool(
    "helm3",
    {"helm3": "helm.sh/helm/v3/cmd/helm"},
    module="helm.sh/helm/v3",
    ldflags="-X helm.sh/helm/v3/internal/version.version={version}",
)
KUBECONFORM = _commands(
    "kubeconform",
    "github.com/yannh/kubeconform",
    ldflags="-X main.version={version}",
)
# The monitoring and traffic of a cluster under test: run as pods (see `images`), or as processes beside it.
PROMETHEUS_OPERATOR = _commands(
    "prometheus-operator",
    "github.com/prometheus-operator/prometheus-operator",
    ("operator", "prometheus-config-reloader"),
    ldflags="-X github.com/prometheus/common/version.Version={version}",
    data=("example/prometheus-operator-crd/*.yaml", "example/rbac/prometheus-operator/*.yaml"),
)
METRICS_SERVER = _commands(
    "metrics-server",
    "sigs.k8s.io/metrics-server",
    data=("manifests/base/*.yaml",),
)
TRAEFIK = _commands(
    "traefik",
    "github.com/traefik/traefik/v3",
    ldflags="-X github.com/traefik/traefik/v3/pkg/version.Version={version}",
)
GATEWAY_API = Tool("gateway-api", {}, module="sigs.k8s.io/gateway-api", data=("config/crd/standard/*.yaml",))
"""Resource definitions only."""
KEDA = Tool("keda", {}, module="github.com/kedacore/keda/v2", data=("config/crd/bases/keda.sh_*.yaml",))
"""Resource definitions only: what the chart renders for it is judged by them."""
FLAGGER = _commands(
    "flagger",
    "github.com/fluxcd/flagger",
    data=("artifacts/flagger/*.yaml",),
)
# What the tests of skaffold.yaml and of the workflows ask.
SKAFFOLD = Tool("skaffold", {}, module="github.com/GoogleContainerTools/skaffold/v2", data=("docs-v2/content/en/schemas/v4beta11.json",))
"""The schema of its configuration only."""
ACTIONLINT = Tool("actionlint", {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"}, module="github.com/rhysd/actionlint")

NODE = (ETCD, KUBERNETES, CONTAINERD, CNI, COREDNS, REGISTRY, PAUSE, HELM)
"""What a whole cluster needs; the others are built when they are asked for."""
COMMON = (*NODE, KWOK, PROMETHEUS, HELM3, KUBECONFORM)
"""What `python -m kind build` makes: beside a cluster, what the tests of Kubernetes and chart and the proof of monitoring run."""
ALL = (*COMMON, PROMETHEUS_OPERATOR, METRICS_SERVER, TRAEFIK, GATEWAY_API, KEDA, FLAGGER, SKAFFOLD, ACTIONLINT)


def tool_of(program: str) -> Tool:
    """The tool that a program is part of.

    Raises:
        KeyError: no tool makes it.
    """
    for tool in ALL:
        if program in tool.programs:
            return tool
    raise KeyError(f"no tool makes {program!r}; there are {', '.join(sorted(name for tool in ALL for name in tool.programs))}")
