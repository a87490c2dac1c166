"""The models read what the API server stores, and refuse what it should have refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from shield_operator.api.ingestjob import IMMUTABLE, ConditionType, IngestJob, IngestJobSpec, Reason
from shield_operator.api.ingestschedule import IngestSchedule
from shield_operator.api.knowledgebase import KnowledgeBase
from shield_operator.api.meta import Resource
from shield_operator.names import ORDER_ANNOTATION
from tests.unit.operator.api.examples import ACCEPTED, REFUSED, UNKNOWN, Obj, a_web_job, an_ingestjob

KINDS: dict[str, type[Resource]] = {kind.__name__: kind for kind in (IngestJob, IngestSchedule, KnowledgeBase)}
CHANGEABLE = {"suspend", "activeDeadlineSeconds", "pendingDeadlineSeconds", "ttlSecondsAfterFinished"}


def read(obj: Obj) -> Resource:
    return KINDS[obj["kind"]].model_validate(obj)


class TestSpecs:
    @pytest.mark.parametrize("case", ACCEPTED)
    def test_what_is_right_is_read_and_written_back_unchanged(self, case: str) -> None:
        obj = ACCEPTED[case]
        assert read(obj).to_json() == obj

    @pytest.mark.parametrize("case", REFUSED)
    def test_what_is_wrong_is_refused_in_the_words_of_the_crd(self, case: str) -> None:
        obj, message = REFUSED[case]
        with pytest.raises(ValidationError) as refusal:
            read(obj)
        assert any(message in error["msg"] for error in refusal.value.errors())

    @pytest.mark.parametrize("case", UNKNOWN)
    def test_what_is_not_offered_is_refused(self, case: str) -> None:
        with pytest.raises(ValidationError) as refusal:
            read(UNKNOWN[case])
        assert {error["type"] for error in refusal.value.errors()} <= {"extra_forbidden"}

    def test_defaults_are_applied_when_reading_and_never_written(self) -> None:
        spec = IngestJob.model_validate(a_web_job()).spec
        assert (spec.backoff_limit, spec.active_deadline_seconds, spec.pending_deadline_seconds) == (3, 3600, 600)
        assert (spec.ttl_seconds_after_finished, spec.managed_by, spec.suspend, spec.strict) == (86_400, "shield-operator", False, False)
        assert set(spec.to_json()) == {"source", "knowledgeBase"}

    def test_all_of_a_spec_is_immutable_but_the_named_four(self) -> None:
        fields = {field.alias for field in IngestJobSpec.model_fields.values()}
        assert {rule.field.removeprefix(".") for rule in IMMUTABLE} == fields - CHANGEABLE

    def test_a_spec_is_frozen(self) -> None:
        job = IngestJob.model_validate(a_web_job())
        with pytest.raises(ValidationError, match="frozen"):
            job.spec.suspend = True  # type: ignore[misc]

    def test_the_largest_order_fits_into_the_annotations_of_a_pod(self) -> None:
        metadata = {f"{number:064}": "\U0001f600" * 256 for number in range(32)}
        annotations = {f"{'d' * 253}/{number:063}": "\U0001f600" * 256 for number in range(8)}
        urls = [f"https://a.example/{number:03}".ljust(2048, "x") for number in range(100)]
        job = IngestJob.model_validate(
            an_ingestjob(source={"documents": {"urls": urls}}, metadata=metadata, podTemplate={"metadata": {"annotations": annotations}})
        )
        order = json.dumps({"urls": job.spec.source.to_json(), "metadata": job.spec.metadata}, ensure_ascii=False)
        size = sum(len(key) + len(value.encode()) for key, value in {**annotations, ORDER_ANNOTATION: order}.items())
        assert size < 256 * 1024 - 4096  # the rest is for the operator's own fields


class TestStatus:
    def test_a_newer_operators_fields_are_ignored(self) -> None:
        job = IngestJob.model_validate({**a_web_job(), "status": {"attempts": 2, "mood": "good"}})
        assert job.status.to_json() == {"attempts": 2}

    def test_times_are_kept_to_the_second_in_utc(self) -> None:
        status: dict[str, Any] = {"startTime": "2026-03-01T12:00:00.75+02:00"}
        job = IngestJob.model_validate({**a_web_job(), "status": status})
        assert job.status.start_time == datetime(2026, 3, 1, 10, tzinfo=UTC)
        assert job.status.to_json() == {"startTime": "2026-03-01T10:00:00Z"}

    @pytest.mark.parametrize(("type_", "finished"), [("Complete", True), ("Failed", True), ("Suspended", False), ("Accepted", False)])
    def test_complete_and_failed_are_the_end(self, type_: str, finished: bool) -> None:
        condition = {"type": type_, "status": "True", "reason": "Because", "lastTransitionTime": "2026-03-01T12:00:00Z"}
        job = IngestJob.model_validate({**a_web_job(), "status": {"conditions": [condition]}})
        assert job.status.true(ConditionType(type_))
        assert job.status.finished is finished

    def test_a_new_job_has_not_ended(self) -> None:
        assert not IngestJob.model_validate(a_web_job()).status.finished

    def test_reasons_are_camel_case(self) -> None:
        assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in Reason)


class TestMetadata:
    def test_the_controlling_owner_is_found_among_others(self) -> None:
        owner = {"apiVersion": "v1", "kind": "Thing", "name": "a", "uid": "1"}
        metadata = {"name": "docs", "ownerReferences": [owner, {**owner, "uid": "2", "controller": True}]}
        job = IngestJob.model_validate({**a_web_job(), "metadata": metadata})
        assert job.metadata.controller is not None
        assert job.metadata.controller.uid == "2"

    def test_without_owners_nobody_controls_it(self) -> None:
        assert IngestJob.model_validate(a_web_job()).metadata.controller is None

    def test_a_deleted_object_says_so(self) -> None:
        metadata = {"name": "docs", "deletionTimestamp": "2026-03-01T12:00:00Z"}
        assert IngestJob.model_validate({**a_web_job(), "metadata": metadata}).metadata.deleting
        assert not IngestJob.model_validate(a_web_job()).metadata.deleting

    def test_children_point_to_their_owner(self) -> None:
        job = IngestJob.model_validate({**a_web_job(), "metadata": {"name": "docs", "uid": "u-1"}})
        assert job.as_owner().to_json() == {
            "apiVersion": "shield.hx-citadel.io/v1alpha1",
            "kind": "IngestJob",
            "name": "docs",
            "uid": "u-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
