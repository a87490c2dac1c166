"""Builders: objects as a user writes them."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
UPLOAD = "0f8fad5b-d9cb-469f-a165-70867728950e"


def a_web_job(name: str = "docs", **spec: Any) -> Obj:
    """A crawl."""
    return an_ingestjob(name, source={"web": {"url": "https://docs.example.com/", "maxPages": 20}}, **spec)


def an_ingestjob(name: str = "docs", **spec: Any) -> Obj:
    """An IngestJob with this spec; the knowledge base is there."""
    return {
        "apiVersion": "shield.hx-citadel.io/v1alpha1",
        "kind": "IngestJob",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"knowledgeBase": "handbook", **spec},
    }


def a_schedule(name: str = "nightly", **spec: Any) -> Obj:
    """A crawl every night."""
    return {
        "apiVersion": "shield.hx-citadel.io/v1alpha1",
        "kind": "IngestSchedule",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"schedule": "0 3 * * *", "ingestJobTemplate": {"spec": a_web_job()["spec"]}, **spec},
    }


def a_knowledge_base(name: str = "handbook", **spec: Any) -> Obj:
    """A knowledge base."""
    return {
        "apiVersion": "shield.hx-citadel.io/v1alpha1",
        "kind": "KnowledgeBase",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": spec,
    }


# What is wrong with an object, where, and a part of what the user reads. The same cases go through the models here, and through a real API
# server in tests/kubernetes/test_crds.py.
WEB = {"url": "https://docs.example.com/"}
REFUSED: dict[str, tuple[Obj, str]] = {
    "no source": (an_ingestjob(source={}), "exactly one of web, documents must be given"),
    "two sources": (an_ingestjob(source={"web": WEB, "documents": {"uploadId": UPLOAD}}), "exactly one of web, documents must be given"),
    "no kind of documents": (an_ingestjob(source={"documents": {}}), "exactly one of urls, persistentVolumeClaim, uploadId must be given"),
    "two kinds of documents": (
        an_ingestjob(source={"documents": {"uploadId": UPLOAD, "urls": ["https://a.example/"]}}),
        "exactly one of urls, persistentVolumeClaim, uploadId must be given",
    ),
    "url of a file": (an_ingestjob(source={"web": {"url": "file:///etc/passwd"}}), "must be an absolute http or https URL"),
    "url with a password": (an_ingestjob(source={"web": {"url": "https://me:secret@a.example/"}}), "without user name or password"),
    "url with a hidden user": (an_ingestjob(source={"documents": {"urls": ["https://a.example\\@b.example/"]}}), "must be an absolute http"),
    "url with a space": (an_ingestjob(source={"web": {"url": "https://a.example/a b"}}), "must be an absolute http or https URL"),
    "url with a line break": (an_ingestjob(source={"web": {"url": "https://a.example/\nb"}}), "must be an absolute http or https URL"),
    "relative url": (an_ingestjob(source={"web": {"url": "/docs"}}), "must be an absolute http or https URL"),
    "sitemap elsewhere": (an_ingestjob(source={"web": {**WEB, "sitemaps": ["sitemap.xml"]}}), "must be auto, or an absolute http"),
    "domain with a path": (an_ingestjob(source={"web": {**WEB, "allowedDomains": ["a.example/x"]}}), "must be a host name"),
    "glob of a host": (an_ingestjob(source={"web": {**WEB, "include": ["docs/**"]}}), "must be a pattern of paths"),
    "glob from the root": (
        an_ingestjob(source={"documents": {"persistentVolumeClaim": {"claimName": "files", "include": ["/etc/*"]}}}),
        "must be a pattern of paths below path",
    ),
    "path above the claim": (
        an_ingestjob(source={"documents": {"persistentVolumeClaim": {"claimName": "files", "path": "a/../../b"}}}),
        "must be a path below the claim's root",
    ),
    "path from the root": (
        an_ingestjob(source={"documents": {"persistentVolumeClaim": {"claimName": "files", "path": "/etc"}}}),
        "must be a path below the claim's root",
    ),
    "long metadata key": (a_web_job(metadata={"k" * 65: "v"}), "a key may have at most 64"),
    "control character in metadata": (a_web_job(metadata={"k": "a\u0007b"}), "a value may not hold control characters"),
    "label of the operator": (
        a_web_job(podTemplate={"metadata": {"labels": {"shield.hx-citadel.io/ingestjob": "other"}}}),
        "a key is reserved",
    ),
    "order by annotation": (a_web_job(podTemplate={"metadata": {"annotations": {"shield.hx-citadel.io/order": "{}"}}}), "a key is reserved"),
    "label that a service selects": (a_web_job(podTemplate={"metadata": {"labels": {"app.kubernetes.io/name": "shield"}}}), "a key is reserved"),
    "role by annotation": (a_web_job(podTemplate={"metadata": {"annotations": {"iam.amazonaws.com/role": "admin"}}}), "a key is reserved"),
    "secrets by annotation": (
        a_web_job(podTemplate={"metadata": {"annotations": {"vault.hashicorp.com/agent-inject": "true"}}}),
        "a key is reserved",
    ),
    "system priority": (a_web_job(podTemplate={"priorityClassName": "system-node-critical"}), "the system's own priorities cannot be taken"),
    "a device": (
        a_web_job(podTemplate={"resources": {"limits": {"smarter-devices/kvm": 1}}}),
        "only cpu, memory and ephemeral-storage can be asked for",
    ),
    "negative memory": (a_web_job(podTemplate={"resources": {"requests": {"memory": "-1Gi"}}}), "must be a quantity"),
    "negative cpu": (a_web_job(podTemplate={"resources": {"requests": {"cpu": -1}}}), "must be a quantity"),
    "no quantity": (a_web_job(podTemplate={"resources": {"limits": {"cpu": "much"}}}), "must be a quantity"),
    "long name": (a_web_job("n" * 53), "of at most 52 characters"),
    "name with a dot": (a_web_job("a.b"), "metadata.name must be a lower-case letter"),
    "name of digits": (a_web_job("2026"), "metadata.name must be a lower-case letter"),
    "long schedule": (a_schedule("n" * 44), "of at most 43 characters"),
    "scheduled upload": (
        a_schedule(ingestJobTemplate={"spec": an_ingestjob(source={"documents": {"uploadId": UPLOAD}})["spec"]}),
        "an upload can be ingested only once",
    ),
    "four cron fields": (a_schedule(schedule="0 3 * *"), "must be five cron fields"),
    "time zone in the schedule": (a_schedule(schedule="TZ=UTC 0 3 * * *"), "must be five cron fields"),
    "long knowledge base": (a_knowledge_base("n" * 53), "of at most 52 characters"),
    "knowledge base with a dot": (a_knowledge_base("a.b"), "metadata.name must be a lower-case letter"),
}  # fmt: skip

UNKNOWN: dict[str, Obj] = {
    "volumes": a_web_job(podTemplate={"volumes": [{"name": "all", "hostPath": {"path": "/"}}]}),
    "env": a_web_job(podTemplate={"env": [{"name": "SHIELD_AUTH_MODE", "value": "none"}]}),
    "envFrom": a_web_job(podTemplate={"envFrom": [{"secretRef": {"name": "others"}}]}),
    "securityContext": a_web_job(podTemplate={"securityContext": {"runAsUser": 0}}),
    "serviceAccountName": a_web_job(podTemplate={"serviceAccountName": "admin"}),
    "containers": a_web_job(podTemplate={"containers": [{"name": "worker", "image": "mine", "command": ["sh"]}]}),
    "imagePullSecrets": a_web_job(podTemplate={"imagePullSecrets": [{"name": "others"}]}),
    "hostNetwork": a_web_job(podTemplate={"hostNetwork": True}),
    "runtimeClassName": a_web_job(podTemplate={"runtimeClassName": "privileged"}),
    "spec of a pod": a_web_job(podTemplate={"spec": {"hostPID": True}}),
    "claims of devices": a_web_job(podTemplate={"resources": {"claims": [{"name": "gpu"}]}}),
    "namespace of the knowledge base": an_ingestjob(source={"web": WEB}, knowledgeBaseNamespace="team-b"),
    "namespace of the claim": an_ingestjob(source={"documents": {"persistentVolumeClaim": {"claimName": "files", "namespace": "team-b"}}}),
    "principal": a_web_job(principal="local"),
}

ACCEPTED: dict[str, Obj] = {
    "a crawl": a_web_job(),
    "every part of a crawl": an_ingestjob(
        source={
            "web": {
                "url": "HTTPS://Docs.Example.COM:8443/a/%20b?x=1&y[]=2#top",
                "maxPages": 10_000,
                "maxDepth": 0,
                "allowedDomains": ["docs.example.com", "*.example.org", ".example.net", "localhost:8080", "[2001:db8::1]:80"],
                "sitemaps": ["auto", "https://docs.example.com/sitemap.xml"],
                "include": ["/docs/**", "*"],
                "exclude": ["/docs/old/*"],
                "render": "auto",
                "acceptCrawlDelaySeconds": 60,
                "refresh": True,
                "removeVanished": True,
            }
        },
        metadata={"team": "A", "language": "Ünï"},
        budgetTokens=10**12,
        strict=True,
        suspend=True,
        backoffLimit=0,
        activeDeadlineSeconds=60,
        pendingDeadlineSeconds=30,
        ttlSecondsAfterFinished=0,
        managedBy="kueue.x-k8s.io/multikueue",
        podTemplate={
            "metadata": {"labels": {"team": "a"}, "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]
                    }
                },
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"team": "a"}}}}
                    ]
                },
            },
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "priorityClassName": "batch",
            "resources": {
                "requests": {"cpu": "500m", "memory": "1.5Gi"},
                "limits": {"cpu": 2, "memory": "4e9", "ephemeral-storage": "1Gi"},
            },
        },
    ),
    "urls": an_ingestjob(source={"documents": {"urls": [f"https://a.example/{'x' * 2020}/{n}" for n in range(100)]}}),
    "a claim": an_ingestjob(
        source={
            "documents": {"persistentVolumeClaim": {"claimName": "files", "path": "a/b..c/.d", "include": ["**/*.pdf"], "exclude": ["x"]}}
        }
    ),
    "an upload": an_ingestjob(source={"documents": {"uploadId": UPLOAD}}),
    "the longest name": a_web_job("n" * 52),
    "a schedule": a_schedule(
        "n" * 43,
        timeZone="America/Argentina/Buenos_Aires",
        startingDeadlineSeconds=300,
        concurrencyPolicy="Forbid",
        suspend=True,
        jitterSeconds=600,
        successfulJobsHistoryLimit=0,
        failedJobsHistoryLimit=5,
    ),
    "a schedule by name": a_schedule(schedule="@daily"),
    "a schedule of weekdays": a_schedule(schedule="*/15 8-18 1,15 JAN-JUN MON-FRI"),
    "a knowledge base": a_knowledge_base(
        "n" * 52, description="All of it.", graph=False, embedding={"model": "all-minilm-l6-v2", "dimension": 384}, deletionPolicy="Delete"
    ),
}
