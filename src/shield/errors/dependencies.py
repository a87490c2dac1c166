"""Services that Shield needs, its configuration, and its own mistakes."""

from __future__ import annotations

from shield.errors.base import Exit, Fault, ShieldError


class CircuitOpen(ShieldError):
    """A dependency keeps failing, so calls to it are paused for a moment."""

    code, status, retryable, fault = "dependency.circuit_open", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again after the time in Retry-After."


class DependencyUnavailable(ShieldError):
    """A dependency does not answer."""

    code, status, retryable, fault = "dependency.unavailable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again in a moment; /readyz names the state of each dependency."


class DependencyMisconfigured(ShieldError):
    """A dependency refuses our credential or does not know the configured model."""

    code, status, retryable, fault = "dependency.misconfigured", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "An operator must mend the credential or the model's name; waiting jobs go on by themselves."


class DependencyThrottled(ShieldError):
    """A dependency asked to slow down."""

    code, status, retryable, fault = "dependency.throttled", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again after the time in Retry-After."


class DependencyRejected(ShieldError):
    """A dependency refused this input."""

    code, status, fault = "dependency.rejected", 422, Fault.DEPENDENCY
    advice = "The message names the dependency; the document or query itself is the cause."


class DatabaseUnavailable(ShieldError):
    """The database does not answer; nothing was stored."""

    code, status, retryable, fault = "dependency.database_unavailable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again in a moment."


class DatabaseBusy(ShieldError):
    """The database is being upgraded, backed up or restored by somebody else."""

    code, status, retryable, fault = "dependency.database_busy", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Try again when that has ended; SHIELD_POSTGRES_SCHEMA_WAIT sets how long is waited."


class SchemaBehind(ShieldError):
    """The database has not been upgraded to this version yet."""

    code, status, retryable, fault = "dependency.schema_behind", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Run `shield db upgrade` once, from this version."


class ServerUnreachable(ShieldError):
    """The Shield server does not answer."""

    code, status, retryable, fault = "dependency.server_unreachable", 503, True, Fault.DEPENDENCY
    exit_code = Exit.TRANSIENT
    advice = "Start it with `shield up`, or check SHIELD_URL."


class InternalError(ShieldError):
    """Something went wrong on our side."""

    code, status, retryable, fault, exit_code = "request.internal", 500, True, Fault.SERVER, Exit.BUG
    advice = "Try again; if it stays, report it with the correlation id."


class ConfigInvalid(ShieldError):
    """The configuration has a value that is missing, unknown or out of range."""

    code, status, fault, exit_code = "config.invalid", 500, Fault.SERVER, Exit.USAGE
    advice = "Correct the named setting; `shield config` prints the effective values."


class DataDirectoryRefused(ShieldError):
    """The data directory cannot be used as it is."""

    code, status, fault, exit_code = "config.data_dir", 500, Fault.SERVER, Exit.USAGE
    advice = "Follow the message, or choose another directory with SHIELD_DATA_DIR."


class DataDirectoryBusy(ShieldError):
    """Another process owns the data directory and does not answer."""

    code, status, fault, exit_code = "config.data_dir_busy", 500, Fault.SERVER, Exit.TRANSIENT
    advice = "Stop the other process, or choose another directory with SHIELD_DATA_DIR."


class DatabaseUnsuitable(ShieldError):
    """The database server does not meet what Shield needs."""

    code, status, fault, exit_code = "config.database", 500, Fault.SERVER, Exit.USAGE
    advice = "Follow the message; docs/DATABASE.md says what is needed."
