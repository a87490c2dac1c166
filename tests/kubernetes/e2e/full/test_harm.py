"""Pods, nodes, services and operators that fail while an IngestJob runs: it completes, and each page is there once."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kind.waiting import until
from tests.kubernetes.e2e.installation import (
    EXAMPLES,
    SHIELD,
    SYSTEM,
    TEAM,
    Installation,
    conditions,
    gone,
    ingestjob,
    knowledge_base,
    progressed,
)

PAGES = 20
MANY_PAGES = 500
"""More than are read while an operator goes and comes."""
Record = Callable[[str, object], None]


def crawl(installation: Installation, name: str, *, pages: int = PAGES, **spec: object) -> None:
    """Begin to crawl, and wait for the first documents."""
    installation.apply(ingestjob(name, {"web": {"url": f"{installation.site}/", "maxPages": pages, "refresh": True}}, **spec))
    until("the first documents", lambda: progressed(installation, name), limit=180)


def completed(installation: Installation, name: str) -> dict[str, object]:
    """Wait for its end: all pages stored, by one job."""
    installation.wait("Complete", f"ingestjob/{name}", seconds=400)
    job = installation.get("ingestjob", name)
    assert job["status"]["progress"]["documents"] == PAGES
    row = installation.row(name)
    assert (row["status"], len(row["outcomes"])) == ("completed", PAGES)
    assert len({outcome["source"] for outcome in row["outcomes"]}) == PAGES
    return dict(job["status"])


def selector(name: str) -> str:
    return f"shield.hx-citadel.io/ingestjob={name}"


def scaled(installation: Installation, namespace: str, name: str, replicas: int) -> None:
    installation.kubectl("scale", "-n", namespace, f"deployment/{name}", f"--replicas={replicas}")
    if replicas == 0:
        gone(installation, "pods", "-l", f"app.kubernetes.io/name={name}", namespace=namespace)
    else:
        installation.kubectl("rollout", "status", "-n", namespace, f"deployment/{name}", "--timeout=180s", timeout=190)


def test_a_deleted_pod_is_replaced(installation: Installation) -> None:
    crawl(installation, "killed")
    installation.kubectl("delete", "-n", TEAM, "pods", "-l", selector("killed"), "--grace-period=0", "--force")
    completed(installation, "killed")


def test_a_drained_node_hands_the_job_back_and_it_goes_on(installation: Installation) -> None:
    crawl(installation, "drained", backoffLimit=0)
    [node] = installation.get("nodes")["items"]
    drain = ["drain", node["metadata"]["name"], "--force", "--delete-emptydir-data", "--disable-eviction=false"]
    try:
        installation.kubectl(*drain, f"--pod-selector={selector('drained')}", "--timeout=120s", timeout=130)
    finally:
        installation.kubectl("uncordon", node["metadata"]["name"])
    assert completed(installation, "drained")["attempts"] == 1  # a disruption costs nothing, not even with backoffLimit 0


def test_a_worker_that_runs_out_of_memory_says_so_and_its_row_ends(installation: Installation) -> None:
    small = {"resources": {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}}
    source = {"documents": {"urls": [f"{installation.site}/page/1"]}}
    installation.apply(ingestjob("memory", source, backoffLimit=1, podTemplate=small))
    installation.wait("Failed", "ingestjob/memory")
    reason = conditions(installation.get("ingestjob", "memory")["status"])["Failed"]
    assert reason == ("True", "RetriesExhausted")
    message = next(item["message"] for item in installation.get("ingestjob", "memory")["status"]["conditions"] if item["type"] == "Failed")
    assert "memory" in message


def test_the_leading_operator_is_killed_and_the_other_goes_on(installation: Installation, record_property: Record) -> None:
    crawl(installation, "leader")
    holder = installation.get("lease", "shield-operator", namespace=SYSTEM)["spec"]["holderIdentity"]
    pods = [item["metadata"]["name"] for item in installation.get("pods", namespace=SYSTEM)["items"]]
    [leader] = [pod for pod in pods if holder.startswith(pod)]
    installation.kubectl("delete", "-n", SYSTEM, "pod", leader, "--grace-period=0", "--force")
    began = time.monotonic()
    until(
        "another leads",
        lambda: installation.get("lease", "shield-operator", namespace=SYSTEM)["spec"]["holderIdentity"] not in ("", holder),
        limit=90,
    )
    record_property("until another led, s", round(time.monotonic() - began, 1))
    completed(installation, "leader")


def test_without_redis_and_orchestrator_it_completes(installation: Installation) -> None:
    crawl(installation, "alone")
    scaled(installation, SHIELD, "valkey", 0)
    scaled(installation, SHIELD, "shield-api", 0)
    try:
        installation.wait("Complete", "ingestjob/alone", seconds=400)
    finally:
        scaled(installation, SHIELD, "valkey", 1)
        scaled(installation, SHIELD, "shield-api", 1)
    assert installation.row("alone")["progress"]["documents"] == PAGES
    until(
        "its last numbers are told although the orchestrator was away at its end",
        lambda: installation.get("ingestjob", "alone")["status"]["progress"]["documents"] == PAGES,
        limit=60,
    )


def test_a_database_that_restarts_costs_a_retry_and_no_document(installation: Installation) -> None:
    crawl(installation, "database")
    installation.kubectl("exec", "-n", SHIELD, "deploy/postgres", "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGINT)")
    completed(installation, "database")


def test_what_is_deleted_while_the_operator_is_down_is_cancelled_soon_after(installation: Installation, record_property: Record) -> None:
    crawl(installation, "orphan", pages=MANY_PAGES)
    job = installation.get("ingestjob", "orphan")["status"]["jobId"]
    scaled(installation, SYSTEM, "shield-operator", 0)
    try:
        installation.kubectl("delete", "-n", TEAM, "ingestjob", "orphan")
        assert installation.job(job)["status"] not in {"completed", "failed", "cancelled"}  # or the test would show nothing
    finally:
        scaled(installation, SYSTEM, "shield-operator", 2)
    began = time.monotonic()
    until("the row is cancelled", lambda: installation.job(job)["status"] == "cancelled", limit=60)
    record_property("row cancelled after the operator's return, s", round(time.monotonic() - began, 1))


def test_a_schedule_runs_at_the_minute(installation: Installation) -> None:
    spec = ingestjob("x", {"documents": {"urls": [f"{installation.site}/page/2"]}})["spec"]
    schedule = {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "ingestJobTemplate": {"spec": spec}}
    installation.apply(
        {"apiVersion": "shield.hx-citadel.io/v1alpha1", "kind": "IngestSchedule", "metadata": {"name": "minutely"}, "spec": schedule}
    )
    try:
        until(
            "a scheduled run succeeded",
            lambda: "lastSuccessfulTime" in installation.get("ingestschedule", "minutely").get("status", {}),
            limit=240,
        )
        made = [
            item["metadata"]["name"] for item in installation.get("ingestjobs")["items"] if item["metadata"]["name"].startswith("minutely-")
        ]
        assert all(abs(int(name.removeprefix("minutely-")) * 60 - time.time()) < 400 for name in made)
    finally:
        installation.kubectl("delete", "-n", TEAM, "ingestschedule", "minutely")
    gone(installation, "ingestjobs", "-l", "shield.hx-citadel.io/schedule=minutely")


def test_a_knowledge_base_that_is_to_be_deleted_goes_with_its_knowledge(installation: Installation) -> None:
    installation.apply(knowledge_base("doomed", deletionPolicy="Delete"))
    installation.wait("Ready", "knowledgebase/doomed", seconds=120)
    source = {"documents": {"urls": [f"{installation.site}/page/3"]}}
    installation.apply(ingestjob("doomed", source, knowledgeBase="doomed"))
    installation.wait("Complete", "ingestjob/doomed")
    installation.kubectl("delete", "-n", TEAM, "knowledgebase", "doomed", "--timeout=240s", timeout=250)
    assert f"{TEAM}--handbook" in installation.bases()
    assert f"{TEAM}--doomed" not in installation.bases()


@pytest.mark.timeout(900)
def test_examples_are_applied_as_they_are(installation: Installation) -> None:
    """All but those that need what this cluster has not: Kueue."""
    for path in sorted(EXAMPLES.glob("*.yaml")):
        installation.kubectl("apply", "-n", TEAM, "--dry-run=server", "--validate=strict", "-f", str(path))
