"""What can go wrong with a cluster, as errors that say what to do."""

from __future__ import annotations


class KindError(Exception):
    """A cluster cannot be built, started or stopped; the message says why, `advice` what to do about it."""

    code = "cluster.failed"
    exit_code = 1
    advice = ""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice or self.advice


class PrerequisiteMissing(KindError):
    """This machine lacks a program, a permission or a kernel feature."""

    code = "cluster.prerequisite_missing"
    exit_code = 2


class DiskFull(KindError):
    """Too little free disk to begin."""

    code = "cluster.disk_full"
    exit_code = 2


class BuildFailed(KindError):
    """A tool could not be built from its source."""

    code = "cluster.build_failed"


class NotReadyInTime(KindError):
    """Something that was waited for did not come within its limit."""

    code = "cluster.not_ready"


class ComponentDied(KindError):
    """A component ended while it was being waited for."""

    code = "cluster.component_died"


class ClusterInUse(KindError):
    """A cluster of this name exists, or nothing is left for one more."""

    code = "cluster.in_use"


class InvalidSettings(KindError):
    """A setting has a value that it cannot have."""

    code = "cluster.settings_invalid"
    exit_code = 2
    advice = "Settings are environment variables, SHIELD_KIND_...; a name is up to 20 lower-case letters, digits and hyphens"
