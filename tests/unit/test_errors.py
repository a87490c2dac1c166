"""The catalogue of errors is an interface: codes are unique, every leaf says what happened and what to do."""

import re

import pytest

from shield.errors import InternalError, ShieldError, from_code, leaf_errors

AREAS = {
    "request", "kb", "job", "document", "page", "crawl", "robots", "egress", "query", "auth", "quota", "dependency", "idempotency", "config",
    "backup", "rollout",
}  # fmt: skip


@pytest.mark.parametrize("error", leaf_errors().values(), ids=lambda e: e.code)
def test_every_leaf_has_a_code_a_sentence_and_an_advice(error: type[ShieldError]) -> None:
    area, _, reason = error.code.partition(".")
    assert area in AREAS
    assert re.fullmatch(r"[a-z0-9_]+", reason)
    assert error.sentence().endswith(".")
    assert error.advice.endswith(".")
    assert 400 <= error.status < 600


def test_codes_are_unique() -> None:
    classes = [cls for cls in ShieldError.__subclasses__() if cls.__module__.startswith("shield.errors.")]
    assert len({cls.code for cls in classes}) == len(classes) == len(leaf_errors())


def test_the_public_form_holds_what_every_surface_shows() -> None:
    error = leaf_errors()["quota.queue_full"](retry_after=2.5, limit=10)
    assert error.public() == {
        "code": "quota.queue_full",
        "message": "The queue is full.",
        "advice": error.advice,
        "retryable": True,
        "retry_after": 2.5,
        "details": {"limit": 10},
    }


def test_an_unknown_stored_code_is_our_own_fault() -> None:
    assert isinstance(from_code("gone.away"), InternalError)
