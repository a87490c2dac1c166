"""Who calls, what they may do, and how much of it."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


class Unauthenticated(ShieldError):
    """The request carries no credential."""

    code, status, exit_code = "auth.required", 401, Exit.AUTH
    advice = "Send `Authorization: Bearer` with a valid key or token; the command line reads SHIELD_API_KEY."


class CredentialInvalid(ShieldError):
    """The credential is wrong, has expired, was revoked, or is meant for another server."""

    code, status, exit_code = "auth.invalid", 401, Exit.AUTH
    advice = "Use a valid key (an administrator makes one with `shield keys create`), or get a new token for this server."


class IdentityUnavailable(ShieldError):
    """The credential cannot be checked at the moment."""

    code, status, retryable, fault, exit_code = "auth.unavailable", 503, True, Fault.DEPENDENCY, Exit.TRANSIENT
    advice = "Try again after the time in Retry-After; the identity provider, or the orchestrator, does not answer."


class Forbidden(ShieldError):
    """Your credential does not allow this."""

    code, status, exit_code = "auth.forbidden", 403, Exit.AUTH
    advice = "Ask an administrator for the scope named in the message."


class UnknownKey(ShieldError):
    """There is no such API key, or it has ended."""

    code, status = "auth.key_not_found", 404
    advice = "List the keys with `shield keys list`; only a valid key can be rotated."


class QueueFull(ShieldError):
    """The queue is full."""

    code, status, retryable, fault = "quota.queue_full", 503, True, Fault.SERVER
    advice = "Try again after the time in Retry-After; nothing was stored."


class Overloaded(ShieldError):
    """The server has more to do than it can answer in time."""

    code, status, retryable, fault = "quota.overloaded", 503, True, Fault.SERVER
    advice = "Try again after the time in Retry-After; if it lasts, add replicas."


class TooManyPending(ShieldError):
    """You have too many jobs waiting."""

    code, status, retryable = "quota.pending_jobs", 429, True
    advice = "Wait for some of your jobs to end, or cancel some."


class BytesQuotaExceeded(ShieldError):
    """You have sent as many bytes today as you may."""

    code, status, retryable = "quota.bytes", 429, True
    advice = "Try again tomorrow, or ask an operator to raise the quota."
