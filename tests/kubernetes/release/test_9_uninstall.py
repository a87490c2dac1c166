"""`helm uninstall` leaves nothing but the CRDs, which it says it keeps."""

from __future__ import annotations

from kind.waiting import until
from tests.kubernetes.release.installed import Release


def test_nothing_is_left_but_the_kinds(release: Release) -> None:
    release.helm("uninstall", "shield", "--wait", "--timeout", "4m")
    until("the namespace is empty", lambda: _left(release) == [], limit=120, pause=1)
    kinds = release.cluster.kubectl.run("get", "crd", "-o", "name")
    assert "ingestjobs.shield.hx-citadel.io" in kinds
    cluster_wide = release.cluster.kubectl.run(
        "get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=shield", "-o", "name"
    )
    assert cluster_wide.strip() == ""


def _left(release: Release) -> list[str]:
    kinds = release.cluster.kubectl.run("api-resources", "--namespaced", "--verbs=list,delete", "-o", "name").split()
    asked = [kind for kind in kinds if kind not in {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}]
    found = release.kubectl("get", ",".join(asked), "-o", "name", "--ignore-not-found", timeout=120).split()
    ours = [name for name in found if name not in {"configmap/kube-root-ca.crt", "serviceaccount/default"}]
    return [
        name for name in ours if not name.startswith(("knowledgebase", "ingestjob", "ingestschedule"))
    ]  # the kinds stay, and so do these
