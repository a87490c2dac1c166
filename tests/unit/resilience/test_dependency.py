"""What a dependency's answer means: the status, the marks in its body, and how long it asks to wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import DependencyMisconfigured, DependencyRejected, DependencyThrottled, DependencyUnavailable, ShieldError
from shield.resilience.dependency import LONGEST_RETRY_AFTER, answer_error, retry_after_seconds


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"), [("0", 0), ("7", 7), (" 7 ", 7), ("86400", LONGEST_RETRY_AFTER), ("9" * 400, LONGEST_RETRY_AFTER)]
    )
    def test_seconds_are_read_up_to_an_hour(self, value: str, seconds: float) -> None:
        assert retry_after_seconds(value) == seconds

    @pytest.mark.parametrize(("ahead", "least", "most"), [(30, 25, 30), (-30, 0, 0), (10**6, LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER)])
    def test_a_date_is_read_too(self, ahead: int, least: float, most: float) -> None:
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
        seconds = retry_after_seconds(value)
        assert seconds is not None
        assert least <= seconds <= most

    @pytest.mark.parametrize("value", [None, "", "soon", "-5", "1.5", "٣", "Mon, 99 Foo 2026 00:00:00 GMT"])
    def test_what_is_neither_says_nothing(self, value: str | None) -> None:
        assert retry_after_seconds(value) is None

    @given(st.text())
    def test_no_text_breaks_it(self, value: str) -> None:
        seconds = retry_after_seconds(value)
        assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER


LITELLM_MODEL = {
    "error": {"message": "Invalid model name passed in model=x", "type": "invalid_request_error", "param": "model", "code": "400"}
}
LITELLM_NO_MODEL = {
    "error": {"message": "/embeddings: Invalid model name passed in model=x. Call `/v1/models`", "param": None, "code": "400"}
}
LITELLM_WRONG_KEY = {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}}
LITELLM_ECHO = {"error": {"message": "litellm.BadRequestError: Invalid model name passed in model=", "param": None, "code": "400"}}
LITELLM_PARAMETER = {
    "error": {"message": "litellm.UnsupportedParamsError: Setting {'encoding_format': 'base64'} is not supported by ollama."}
}
LITELLM_BUDGET = {"error": {"message": "Budget has been exceeded!", "type": "budget_exceeded", "param": None, "code": "400"}}
OPENAI_CREDIT = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}
OPENAI_TOO_LONG = {
    "error": {"message": "maximum context length", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
}
OPENAI_PARAMETER = {"error": {"message": "Unsupported parameter", "param": "max_tokens", "code": "unsupported_parameter"}}


class TestMeaning:
    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (400, LITELLM_MODEL, DependencyMisconfigured),
            (400, LITELLM_NO_MODEL, DependencyMisconfigured),
            (400, LITELLM_WRONG_KEY, DependencyMisconfigured),
            (400, LITELLM_ECHO, DependencyRejected),
            (400, LITELLM_BUDGET, DependencyMisconfigured),
            (429, OPENAI_CREDIT, DependencyMisconfigured),
            (402, {}, DependencyMisconfigured),
            (400, {"error": '"all-minilm" does not support chat'}, DependencyMisconfigured),
            (404, {"error": "model 'x' not found"}, DependencyMisconfigured),
            (400, {"error": "cannot read: the page says that x does not support y"}, DependencyRejected),
            (400, OPENAI_TOO_LONG, DependencyRejected),
            (400, {"error": "the input length exceeds the context length"}, DependencyRejected),
            (400, OPENAI_PARAMETER, DependencyRejected),
            (422, {"detail": "x"}, DependencyRejected),
            (429, {"error": {"code": "rate_limit_exceeded"}}, DependencyThrottled),
            (500, LITELLM_MODEL, DependencyUnavailable),
        ],
    )
    def test_a_body_may_say_whose_fault_it_is(self, status: int, body: object, expected: type[ShieldError]) -> None:
        error = answer_error("llm", status, json.dumps(body).encode(), 7)
        assert type(error) is expected
        assert error.details["service"] == "llm"
        assert str(body) not in str(error)

    def test_a_parameter_that_is_not_taken_is_named_if_it_is_one_of_ours(self) -> None:
        assert answer_error("llm", 400, json.dumps(OPENAI_PARAMETER).encode()).details["parameter"] == "max_tokens"
        assert answer_error("llm", 400, json.dumps(LITELLM_PARAMETER).encode()).details["parameter"] == "encoding_format"
        foreign = {"error": {"param": "our secret text", "code": "unsupported_parameter"}}
        assert "parameter" not in answer_error("llm", 400, json.dumps(foreign).encode()).details

    @given(
        st.sampled_from([400, 413, 422, 401, 402, 403, 404, 429, 408, 500, 503, 302]),
        st.binary() | st.builds(lambda n: b"[" * n, st.just(60_000)),
    )
    def test_no_body_breaks_it(self, status: int, body: bytes) -> None:
        assert answer_error("llm", status, body).details["service"] == "llm"

    @given(
        st.recursive(
            st.none() | st.booleans() | st.text() | st.integers(),
            lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["error", "param", "code", "type"]), x),
        )
    )
    def test_no_json_breaks_it(self, body: object) -> None:
        assert answer_error("llm", 400, json.dumps({"error": body}).encode()).details["service"] == "llm"
