"""What a dependency's HTTP status means, in one place, so that breakers, jobs and outcomes agree on it."""

from __future__ import annotations

from shield.errors import DependencyMisconfigured, DependencyRejected, DependencyThrottled, DependencyUnavailable, ShieldError


def dependency_error(service: str, status: int, retry_after: float | None = None) -> ShieldError:
    """The error of an unsuccessful HTTP `status` from `service`; `retry_after` in seconds, as the answer asked.

    400, 413, 422 are caused by the document or query itself; 401, 403, 404 (an unknown model or collection) by our
    configuration; 429 asks us to slow down; 408, 5xx and anything unexpected mean that the dependency is not available.
    The answer's body is never part of the error: it may quote the document.
    """
    if status in (400, 413, 422):
        return DependencyRejected(f"`{service}` refused this input (HTTP {status}).", service=service)
    if status in (401, 403, 404):
        return DependencyMisconfigured(
            f"`{service}` refuses our credential or does not know the configured model (HTTP {status}).", service=service
        )
    if status == 429:
        return DependencyThrottled(f"`{service}` asked to slow down.", retry_after=retry_after, service=service)
    return DependencyUnavailable(f"`{service}` does not answer properly (HTTP {status}).", retry_after=retry_after, service=service)
