"""API keys as administrators see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from shield.auth import Scope
from shield.service.models.base import Input, KbName, Model, no_boolean

_MAX_DAYS = 3650
_MAX_BASES = 100  # they travel in the token between our processes
PrincipalName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:|/-]*$")]
# The bounds come first: behind the validator of `Whole` their names in the schema would be pydantic's, not JSON Schema's.
Days = Annotated[int, Field(ge=1, le=_MAX_DAYS), BeforeValidator(no_boolean)]
Grace = Annotated[int, Field(ge=0, le=30 * 86_400), BeforeValidator(no_boolean)]


class KeyCreate(Input):
    """Make an API key."""

    name: Annotated[str, StringConstraints(max_length=200)] = ""
    """What it is for, for people."""
    principal: PrincipalName | None = None
    """Who its holder is: keys of one principal share jobs and uploads. Default: `key:` and the key's id, so nobody else."""
    scopes: list[Scope] = Field(default_factory=lambda: [Scope.KB_READ, Scope.JOBS_READ], min_length=1, max_length=len(Scope))
    """What it may do; `admin` may do everything, everywhere."""
    knowledge_bases: list[KbName] | None = Field(default_factory=lambda: ["default"], max_length=_MAX_BASES)
    """Where it may do it; null = everywhere. What its principal owns is always included."""
    expires_in_days: Days | None = None
    """After how many days it ends; null = never."""

    @field_validator("principal", mode="after")
    @classmethod
    def _not_ours(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("shield:"):
            raise ValueError("names that begin with shield: are the system's own")
        return value


class KeyRotate(Input):
    """Replace a key: a new secret for the same principal; the old key stays valid for a grace period."""

    grace_seconds: Grace | None = None
    """How long the old key goes on; null = SHIELD_AUTH_KEY_GRACE."""


class KeyView(Model):
    """A key without its secret."""

    id: str
    name: str
    principal: str
    scopes: list[Scope]
    knowledge_bases: list[str] | None = None
    """null = everywhere."""
    valid: bool
    """Neither expired nor revoked."""
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    """To the minute."""
    replaced_by: str | None = None
    """The key that a rotation made of it."""


class KeyCreated(KeyView):
    """A key with its secret, which is shown this once and kept nowhere."""

    key: str
    """What its holder sends: `Authorization: Bearer <key>`."""


class KeyList(Model):
    """Newest first."""

    keys: list[KeyView]
