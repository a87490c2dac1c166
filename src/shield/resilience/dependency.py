"""What a dependency's answer means, in one place, so that breakers, jobs and outcomes agree on it.

The status decides, except where endpoints are known to say the opposite of what they mean: LiteLLM answers 400 to an unknown model,
to a wrong key (without a database) and to a key without budget, Ollama to a model that cannot chat, OpenAI 429 for want of credit.
All of these are our configuration, not the document. The body is read for such marks only, at places where no text of ours can
stand, and is never part of the error, because it may quote the document.
"""

from __future__ import annotations

import json
import re
import time
from email.utils import parsedate_to_datetime

from shield.errors import DependencyMisconfigured, DependencyRejected, DependencyThrottled, DependencyUnavailable, ShieldError

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; who asks for more is asked again after an hour."""

_OUR_FAULT = frozenset(
    {"model_not_found", "invalid_api_key", "insufficient_quota", "budget_exceeded", "billing_not_active", "no_db_connection"}
)
"""Codes and types in an OpenAI-like error object that no other document would change."""
_PARAMETERS = ("max_tokens", "temperature", "response_format", "encoding_format")
"""Parameters of ours that some models do not take; the caller can leave them out."""
_LITELLM_MODEL = re.compile(r"(/[\w/]+: )?Invalid model name passed in model=")
_LITELLM_PARAMETER = "litellm.UnsupportedParamsError: "
_OLLAMA_MODEL = re.compile(r'invalid model name|model is required|"?[\w.:/-]+"? does not support \w+\Z')


def dependency_error(service: str, status: int, retry_after: float | None = None) -> ShieldError:
    """The error of an unsuccessful HTTP `status` from `service`; `retry_after` in seconds, as the answer asked.

    400, 413, 422 are caused by the document or query itself; 401, 402, 403, 404 (an unknown model or collection) by our
    configuration or account; 429 asks us to slow down; 408, 5xx and anything unexpected mean that the dependency is not available.
    """
    if status in (400, 413, 422):
        return DependencyRejected(f"`{service}` refused this input (HTTP {status}).", service=service)
    if status in (401, 402, 403, 404):
        return _misconfigured(service, status)
    if status == 429:
        return DependencyThrottled(f"`{service}` asked to slow down.", retry_after=retry_after, service=service)
    return DependencyUnavailable(f"`{service}` does not answer properly (HTTP {status}).", retry_after=retry_after, service=service)


def answer_error(service: str, status: int, body: bytes, retry_after: float | None = None) -> ShieldError:
    """The error of a model endpoint's unsuccessful answer: `dependency_error`, corrected by the marks in its body."""
    error = _error_of(body)
    if status in (400, 422, 429) and _blames_us(error):
        return _misconfigured(service, status)
    if status == 400 and isinstance(error, dict) and (parameter := _not_taken(error)):
        return DependencyRejected(f"`{service}` does not take the parameter {parameter}.", service=service, parameter=parameter)
    return dependency_error(service, status, retry_after)


def retry_after_seconds(value: str | None) -> float | None:
    """A Retry-After header (seconds or an HTTP date) as seconds from now, between 0 and `LONGEST_RETRY_AFTER`; None if it says nothing."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _misconfigured(service: str, status: int) -> DependencyMisconfigured:
    return DependencyMisconfigured(
        f"`{service}` refuses our credential or does not know the configured model (HTTP {status}).", service=service
    )


def _blames_us(error: object) -> bool:
    if isinstance(error, dict):
        marks = {_word(error, "code"), _word(error, "type")}
        return _word(error, "param") == "model" or not _OUR_FAULT.isdisjoint(marks) or bool(_LITELLM_MODEL.match(_word(error, "message")))
    return isinstance(error, str) and bool(_OLLAMA_MODEL.match(error))


def _not_taken(error: dict[str, object]) -> str | None:
    """The parameter of ours that this model does not take, as OpenAI or LiteLLM says it."""
    message = _word(error, "message")
    if message.startswith(_LITELLM_PARAMETER):
        return next((name for name in _PARAMETERS if f"'{name}'" in message[:500]), None)
    return next((name for name in _PARAMETERS if _word(error, "param") == name and _word(error, "code").startswith("unsupported_")), None)


def _word(error: dict[str, object], name: str) -> str:
    value = error.get(name)
    return value if isinstance(value, str) else ""


def _error_of(body: bytes) -> object:
    """The field `error` of a JSON answer."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer.get("error") if isinstance(answer, dict) else None
