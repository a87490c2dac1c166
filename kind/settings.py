"""Settings of the cluster tool: environment variables with the prefix `SHIELD_KIND_`; durations in seconds."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

GiB = 1024**3


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "shield" / "kind"


class KindSettings(BaseSettings):
    """Where things lie, and how long to wait for them."""

    model_config = SettingsConfigDict(env_prefix="SHIELD_KIND_", frozen=True)

    cluster: str = Field(default="shield", pattern=r"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$")
    """Name of the cluster; clusters of different names run side by side."""

    cache: Path = Field(default_factory=lambda: _xdg("XDG_CACHE_HOME", ".cache"))
    """Built programs, kept between starts."""

    state: Path = Field(default_factory=lambda: _xdg("XDG_STATE_HOME", ".local/state"))
    """What running clusters need: certificates, logs, images, data. A cluster's part is deleted when it goes down."""

    build_free_disk: ByteSize = ByteSize(14 * GiB)
    """Free disk that a build from nothing needs; sources and intermediate results are deleted after it."""

    run_free_disk: ByteSize = ByteSize(4 * GiB)
    """Free disk that a running cluster needs."""

    build_timeout: float = Field(default=5400, gt=0)
    """Longest build of one tool."""

    build_lock_timeout: float = Field(default=7200, gt=0)
    """Longest wait for another start that is building."""

    ready_timeout: float = Field(default=180, gt=0)
    """Longest wait for a component or the node to become ready."""

    stop_timeout: float = Field(default=30, gt=0)
    """Longest wait for processes, mounts and links to go."""

    pods_memory: ByteSize = ByteSize(8 * GiB)
    """Memory that all pods together may take; at most three quarters of the machine's."""
