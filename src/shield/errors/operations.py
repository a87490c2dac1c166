"""Backups and rollouts."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


class BackupDamaged(ShieldError):
    """The backup is not whole, or is no backup."""

    code, status = "backup.damaged", 422
    advice = "Take another backup; nothing was changed."


class BackupTooNew(ShieldError):
    """The backup, or the database, was made by a newer version than this one."""

    code, status, exit_code = "backup.too_new", 422, Exit.USAGE
    advice = "Use the version that the message names, or a later one."


class BackupPlaceRefused(ShieldError):
    """The backup cannot be written or read there."""

    code, status, exit_code = "backup.place", 422, Exit.USAGE
    advice = "Name a new file, or s3://bucket/key with the AWS_* variables of your object store."


class BackupPlaceUnavailable(ShieldError):
    """The object store does not answer."""

    code, status, retryable, fault = "backup.place_unavailable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again in a moment."


class DatabaseNotEmpty(ShieldError):
    """The database holds documents or jobs already."""

    code, status = "backup.database_not_empty", 409
    advice = "Restore into an empty database, or replace everything in this one with --force."


class RolloutRefused(ShieldError):
    """Helm did not do what the rollout asked for."""

    code, status = "rollout.refused", 409
    advice = "Follow the message; `helm history RELEASE` says what stands."


class RolloutBlind(ShieldError):
    """Prometheus does not say how stable servers and canary do."""

    code, status, retryable, fault = "rollout.blind", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Check --prometheus, and that it has the rule group shield-canary of the release's namespace."
