"""What a dependency's answer means, in one place, so that breakers, jobs and outcomes agree on it.

The status decides, except where endpoints are known to say the opposite of what they mean: a 400 that names the *model* or the
*budget of the key* is our configuration, not the document (LiteLLM, Ollama), and a 429 for want of credit does not pass by waiting.
The body is read for these marks only and is never part of the error, because it may quote the document.
"""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime

from shield.errors import DependencyMisconfigured, DependencyRejected, DependencyThrottled, DependencyUnavailable, ShieldError

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; who asks for more is asked again after an hour."""

_OUR_FAULT = frozenset({"model_not_found", "invalid_api_key", "insufficient_quota", "budget_exceeded", "billing_not_active"})
"""Codes and types in an OpenAI-like error object that no other document would change."""
_PARAMETERS = ("max_tokens", "temperature", "response_format")
"""Parameters of ours that some models do not take; the caller can leave them out."""
_OLLAMA_OUR_FAULT = ("does not support", "invalid model name", "model is required")


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
    if (
        status == 400
        and isinstance(error, dict)
        and error.get("param") in _PARAMETERS
        and str(error.get("code")).startswith("unsupported_")
    ):
        return DependencyRejected(f"`{service}` does not take this parameter.", service=service, parameter=error["param"])
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
        return error.get("param") == "model" or not _OUR_FAULT.isdisjoint({str(error.get("code")), str(error.get("type"))})
    return isinstance(error, str) and any(mark in error for mark in _OLLAMA_OUR_FAULT)


def _error_of(body: bytes) -> object:
    """The field `error` of a JSON answer."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer.get("error") if isinstance(answer, dict) else None
