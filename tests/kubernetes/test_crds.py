"""The CRDs on a real API server: what it refuses and in which words, what it keeps, and what kubectl shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kind.control_plane import ControlPlane
from kind.kubectl import KubectlFailed
from kind.waiting import until
from tests.unit.operator.api.examples import ACCEPTED, REFUSED, UNKNOWN, Obj, a_knowledge_base, a_schedule, a_web_job

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))
FULL = ACCEPTED["every part of a crawl"]
IMMUTABLE: dict[str, Any] = {
    "knowledgeBase": "other",
    "metadata": {"team": "b"},
    "budgetTokens": 5,
    "strict": False,
    "backoffLimit": 7,
    "managedBy": "somebody.example/else",
    "podTemplate": {"priorityClassName": "other"},
}
CHANGEABLE: dict[str, Any] = {
    "suspend": False,
    "activeDeadlineSeconds": 99,
    "pendingDeadlineSeconds": 99,
    "ttlSecondsAfterFinished": 99,
}


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> ControlPlane:
    """The API server with our kinds, and the namespace of the examples."""
    plane.kubectl("apply", "--server-side", "-f", str(ROOT / "operator" / "manifests" / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "operator" / "manifests" / "crds"))
    plane.kubectl("create", "namespace", "team-a")
    return plane


def try_out(api: ControlPlane, obj: Obj, *flags: str) -> Obj:
    """What the API server would store."""
    return json.loads(api.kubectl("create", "--dry-run=server", "-o", "json", *flags, "-f", "-", input=json.dumps(obj)))  # type: ignore[no-any-return]


def refusal(call: Callable[[], object]) -> str:
    """What the API server says."""
    with pytest.raises(KubectlFailed) as caught:
        call()
    return str(caught.value)


class TestSchema:
    def test_nothing_in_it_is_against_the_rules_of_structural_schemas(self, api: ControlPlane) -> None:
        for crd in api.get("crd")["items"]:
            conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
            assert conditions["Established"] == "True"
            assert conditions.get("NonStructuralSchema", "False") == "False"

    @pytest.mark.parametrize("case", ACCEPTED)
    def test_what_is_right_is_kept_as_it_was_written(self, api: ControlPlane, case: str) -> None:
        assert try_out(api, ACCEPTED[case])["spec"] == ACCEPTED[case]["spec"]

    @pytest.mark.parametrize("case", REFUSED)
    def test_what_is_wrong_is_refused_in_the_words_of_the_model(self, api: ControlPlane, case: str) -> None:
        obj, message = REFUSED[case]
        assert message in refusal(lambda: try_out(api, obj))

    @pytest.mark.parametrize("case", UNKNOWN)
    def test_an_attack_by_a_field_that_is_not_offered_is_refused_and_never_kept(self, api: ControlPlane, case: str) -> None:
        assert "unknown field" in refusal(lambda: try_out(api, UNKNOWN[case]))
        kept, wanted = try_out(api, UNKNOWN[case], "--validate=ignore"), UNKNOWN[case]
        assert kept["spec"] != wanted["spec"]
        assert set(_leaves(kept["spec"])) < set(_leaves(wanted["spec"]))

    def test_schedules_refuse_in_their_template_what_a_job_refuses(self, api: ControlPlane) -> None:
        bad = {"spec": {"knowledgeBase": "handbook", "source": {"web": {"url": "ftp://a.example/"}}}}
        assert "must be an absolute http or https URL" in refusal(lambda: try_out(api, a_schedule(ingestJobTemplate=bad)))
        worse = {"spec": {**a_web_job()["spec"], "podTemplate": {"serviceAccountName": "admin"}}}
        assert "unknown field" in refusal(lambda: try_out(api, a_schedule(ingestJobTemplate=worse)))


def _leaves(value: Any, where: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, f"{where}.{key}")
    else:
        yield where


@pytest.fixture(scope="module")
def jobs(api: ControlPlane) -> ControlPlane:
    """Two jobs: one says everything, one only what it must."""
    for obj, name in ((FULL, "full"), (a_web_job(), "small")):
        api.kubectl("create", "-f", "-", input=json.dumps({**obj, "metadata": {**obj["metadata"], "name": name}}))
    return api


class TestChanges:
    def patch(self, api: ControlPlane, name: str, spec: Obj, kind: str = "ingestjob") -> str:
        return api.kubectl("patch", kind, name, "-n", "team-a", "--dry-run=server", "--type=merge", "-p", json.dumps({"spec": spec}))

    @pytest.mark.parametrize("field", IMMUTABLE)
    def test_what_is_immutable_cannot_be_changed(self, jobs: ControlPlane, field: str) -> None:
        message = refusal(lambda: self.patch(jobs, "full", {field: IMMUTABLE[field]}))
        assert f"{field} cannot be changed" in message
        assert f"spec.{field}" in message

    @pytest.mark.parametrize("field", set(IMMUTABLE) - {"knowledgeBase"})
    def test_what_is_immutable_cannot_be_added_or_removed(self, jobs: ControlPlane, field: str) -> None:
        assert f"{field} cannot be changed" in refusal(lambda: self.patch(jobs, "small", {field: IMMUTABLE[field]}))
        assert f"{field} cannot be changed" in refusal(lambda: self.patch(jobs, "full", {field: None}))

    def test_a_source_cannot_be_changed_in_any_part(self, jobs: ControlPlane) -> None:
        for web in ({"url": "https://other.example/"}, {"maxPages": 5}, {"include": None}, {"refresh": False}):
            assert "source cannot be changed" in refusal(lambda web=web: self.patch(jobs, "full", {"source": {"web": web}}))  # type: ignore[misc]
        other = {"web": None, "documents": {"urls": ["https://a.example/"]}}
        assert "source cannot be changed" in refusal(lambda: self.patch(jobs, "full", {"source": other}))

    @pytest.mark.parametrize("field", CHANGEABLE)
    def test_the_named_four_can_be_added_changed_and_removed(self, jobs: ControlPlane, field: str) -> None:
        for name, value in (("small", CHANGEABLE[field]), ("full", CHANGEABLE[field]), ("full", None)):
            assert "patched" in self.patch(jobs, name, {field: value})

    def test_all_of_a_schedule_can_be_changed(self, api: ControlPlane) -> None:
        api.kubectl("create", "-f", "-", input=json.dumps(a_schedule("changing")))
        template = {"spec": {"knowledgeBase": "other", "source": {"web": {"url": "https://other.example/"}}}}
        changed = {"schedule": "@hourly", "suspend": True, "ingestJobTemplate": template}
        assert "patched" in self.patch(api, "changing", changed, "ingestschedule")

    def test_a_knowledge_base_keeps_its_graph_and_may_change_the_rest(self, api: ControlPlane) -> None:
        api.kubectl("create", "-f", "-", input=json.dumps(a_knowledge_base("kept")))
        assert "graph cannot be changed" in refusal(lambda: self.patch(api, "kept", {"graph": False}, "knowledgebase"))
        assert "patched" in self.patch(api, "kept", {"graph": True}, "knowledgebase")
        changed = {"description": "New.", "deletionPolicy": "Delete", "embedding": {"model": "m", "dimension": 8}}
        assert "patched" in self.patch(api, "kept", changed, "knowledgebase")


STATUS: Obj = {
    "conditions": [
        {"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-03-01T12:00:00Z"}
        for type_, status, reason in (
            ("Accepted", "True", "Accepted"),
            ("Complete", "False", "Running"),
            ("Failed", "False", "NotFailed"),
            ("Suspended", "False", "NotSuspended"),
        )
    ],
    "observedGeneration": 1,
    "jobName": "seen-1",
    "attempts": 1,
    "progress": {"stage": "crawling", "pagesFound": 812, "pagesFetched": 377, "documents": 366, "chunks": 4001, "failed": 11},
}


@pytest.fixture
def seen(api: ControlPlane) -> Iterator[ControlPlane]:
    """A job that runs."""
    api.kubectl("create", "-f", "-", input=json.dumps(a_web_job("seen")))
    tell(api, STATUS)
    yield api
    api.kubectl("delete", "ij", "seen", "-n", "team-a")


def tell(api: ControlPlane, status: Obj) -> None:
    """Write its status, as the operator does."""
    api.kubectl("patch", "ij", "seen", "-n", "team-a", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


class TestKubectl:
    def test_get_shows_the_work(self, seen: ControlPlane) -> None:
        head, row = (line.split() for line in seen.kubectl("get", "ij", "seen", "-n", "team-a").splitlines())
        assert head == ["NAME", "STATE", "BASE", "STAGE", "FETCHED", "FOUND", "DOCUMENTS", "FAILED", "AGE"]
        assert row[:-1] == ["seen", "Running", "handbook", "crawling", "377", "812", "366", "11"]

    def test_wide_shows_the_rest(self, seen: ControlPlane) -> None:
        wide = seen.kubectl("get", "ij", "seen", "-n", "team-a", "-o", "wide")
        assert all(column in wide for column in ("CHUNKS", "ATTEMPTS", "STARTED", "FINISHED", "JOB", "MESSAGE", "4001", "seen-1"))

    def test_the_state_is_that_of_complete_wherever_it_stands(self, seen: ControlPlane) -> None:
        tell(seen, {"conditions": STATUS["conditions"][::-1]})
        assert " Running " in seen.kubectl("get", "ij", "seen", "-n", "team-a")

    def test_wait_ends_with_the_condition(self, seen: ControlPlane) -> None:
        with pytest.raises(KubectlFailed, match="timed out"):
            seen.kubectl("wait", "--for=condition=Complete", "--timeout=1s", "-n", "team-a", "ingestjob/seen")
        complete = {**STATUS["conditions"][1], "status": "True", "reason": "Completed"}
        tell(seen, {"conditions": [complete]})
        assert "condition met" in seen.kubectl("wait", "--for=condition=Complete", "--timeout=10s", "-n", "team-a", "ingestjob/seen")

    def test_wait_for_the_end_whichever_it_is(self, seen: ControlPlane) -> None:
        tell(seen, {"completionTime": "2026-03-01T12:30:00Z"})
        ended = ["--for=jsonpath={.status.completionTime}", "--timeout=10s"]
        assert "condition met" in seen.kubectl("wait", *ended, "-n", "team-a", "ingestjob/seen")

    def test_a_user_cannot_write_the_status_with_the_spec(self, seen: ControlPlane) -> None:
        before = seen.get("ij", "seen", "-n", "team-a")["status"]
        seen.kubectl("patch", "ij", "seen", "-n", "team-a", "--type=merge", "-p", '{"status": {"attempts": 77}}')
        assert seen.get("ij", "seen", "-n", "team-a")["status"] == before

    def test_a_phase_is_not_kept(self, seen: ControlPlane) -> None:
        tell(seen, {"phase": "Running", "attempts": 5})
        status = seen.get("ij", "seen", "-n", "team-a")["status"]
        assert status["attempts"] == 5
        assert "phase" not in status

    def test_short_names_category_and_field_selector(self, seen: ControlPlane) -> None:
        assert "ingestjob.shield.hx-citadel.io/seen" in seen.kubectl("get", "shield", "-n", "team-a", "-o", "name")
        assert seen.kubectl("get", "ijs,kb", "-n", "default", "-o", "name") == ""
        selected = seen.kubectl("get", "ij", "-n", "team-a", "-o", "name", "--field-selector=spec.knowledgeBase=handbook")
        assert "ingestjob.shield.hx-citadel.io/seen" in selected
        assert seen.kubectl("get", "ij", "-n", "team-a", "-o", "name", "--field-selector=spec.knowledgeBase=other") == ""

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("ingestjob", "content that becomes knowledge once"),
            ("ingestjob.spec.source.web.maxPages", "maxPages is how many pages are requested at most"),
            ("ingestjob.spec.podTemplate.affinity.nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"),
            ("ingestjob.status.conditions", "-required-"),
            ("ijs.spec.concurrencyPolicy", "ENUM: Allow Forbid Replace"),
            ("kb.spec.deletionPolicy", "Delete it and prove it"),
        ],
    )
    def test_explain_reads_well(self, seen: ControlPlane, path: str, says: str) -> None:
        text = " ".join(seen.kubectl("explain", path).split())
        assert says in text


class TestExamples:
    @pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
    def test_each_can_be_applied_as_it_is(self, api: ControlPlane, path: Path) -> None:
        namespace = f"example-{path.stem}"
        api.kubectl("create", "namespace", namespace)
        text = _for_one_namespace(path.read_text(encoding="utf-8"), namespace)
        for flags in (["--dry-run=server"], [], ["--server-side", "--force-conflicts"]):
            api.kubectl("apply", "-n", namespace, *flags, "-f", "-", input=text)
        api.kubectl("delete", "-n", namespace, "--wait=false", "-f", "-", input=text)

    def test_the_policy_lets_only_its_labels_through(self, api: ControlPlane) -> None:
        api.kubectl("create", "namespace", "guarded")
        policy = _for_one_namespace((ROOT / "docs" / "examples" / "policy-pod-metadata.yaml").read_text(encoding="utf-8"), "guarded")
        api.kubectl("apply", "-f", "-", input=policy)
        try:
            bad = _in("guarded", a_web_job(podTemplate={"metadata": {"labels": {"app": "web"}}}))
            until("the policy", lambda: _refused(api, bad), limit=60)
            assert "only the labels team and cost-centre" in refusal(lambda: try_out(api, bad))
            noted = _in("guarded", a_schedule(ingestJobTemplate={"spec": _with_annotations()}))
            assert "no annotations may be set" in refusal(lambda: try_out(api, noted))
            for good in (a_web_job(), a_schedule(), a_web_job(podTemplate={"metadata": {"labels": {"team": "a"}}})):
                try_out(api, _in("guarded", good))
        finally:
            api.kubectl("delete", "-f", "-", input=policy)


def _for_one_namespace(text: str, namespace: str) -> str:
    """A policy's binding would reach all other tests."""
    objects = list(yaml.safe_load_all(text))
    for found in objects:
        if found["kind"] == "ValidatingAdmissionPolicyBinding":
            selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            found["spec"]["matchResources"] = {"namespaceSelector": selector}
    return yaml.safe_dump_all(objects)


def _in(namespace: str, obj: Obj) -> Obj:
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}


def _with_annotations() -> Obj:
    return {**a_web_job()["spec"], "podTemplate": {"metadata": {"annotations": {"note": "x"}}}}


def _refused(api: ControlPlane, obj: Obj) -> bool:
    try:
        try_out(api, obj)
    except KubectlFailed:
        return True
    return False
