"""Settings of the image tool: environment variables with the prefix `SHIELD_IMAGES_`; durations in seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shield" / "images"


class ImageSettings(BaseSettings):
    """How images are built, and where to."""

    model_config = SettingsConfigDict(env_prefix="SHIELD_IMAGES_", frozen=True, populate_by_name=True)

    builder: Literal["auto", "docker", "buildah"] = Field("auto", validation_alias=AliasChoices("SHIELD_IMAGES_BUILDER", "BUILDER"))
    """`auto` = Docker where its daemon answers, else buildah."""
    registry: str | None = Field(None, validation_alias=AliasChoices("SHIELD_IMAGES_REGISTRY", "REGISTRY"))
    """Where to push, for example registry.example.com/team; unset = the running local cluster's registry, or nowhere."""
    isolation: Literal["auto", "oci", "chroot"] = "auto"
    """buildah: how RUN is kept apart; `auto` = runc where it is installed."""
    base: str = "docker.io/library/python:3.12-slim-bookworm"
    """The image that all begin with."""
    local_base: Literal["auto", "always", "never"] = "auto"
    """buildah: whether to make the base image from Debian packages and this machine's Python; `auto` = if it cannot be pulled."""
    python: Path | None = None
    """The CPython 3.12 for a local base; unset = `python3.12` on the path or of pyenv."""
    ca_bundle: Path | None = Field(None, validation_alias=AliasChoices("SHIELD_IMAGES_CA_BUNDLE", "SSL_CERT_FILE"))
    """buildah: certificates that builds trust instead of the base image's, for networks with a proxy of their own."""
    cache: Path = Field(default_factory=_cache)
    """buildah: what installers download, kept between builds."""
    build_timeout: float = Field(3600, gt=0)
    """Longest build of one image."""
    base_timeout: float = Field(1200, gt=0)
    """Longest making or pulling of the base image."""
    push_timeout: float = Field(900, gt=0)
    """Longest push of one image."""
    query_timeout: float = Field(60, gt=0)
    """Longest question to the builder."""
