"""API keys: `shk_{8 id}_{43 base64url}`, 256 random bits of which the server keeps a sha256 only.

The id is public: it names the key in listings, logs and commands. The rest is shown once, when the key is made. A key of
256 random bits needs no slow hash; the comparison takes the same time whatever is wrong with a key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Protocol

from shield.auth.principal import Principal

PREFIX = "shk_"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_FORM = re.compile(r"shk_([a-z0-9]{8})_[A-Za-z0-9_-]{43}", re.ASCII)
_NO_KEY = bytes(32)


class KeyVerifier(Protocol):
    """Who knows which keys are valid: the database, or an orchestrator that is asked."""

    async def principal(self, key: str) -> Principal:
        """Who the holder of this key is.

        Raises:
            CredentialInvalid: it is no valid key.
            IdentityUnavailable, DatabaseUnavailable: that cannot be told at the moment.
        """


@dataclass(frozen=True)
class NewKey:
    """A key as it is made; `secret` is what its holder sends, and is kept nowhere."""

    id: str
    secret: str

    @property
    def digest(self) -> bytes:
        """What the server keeps."""
        return digest(self.secret)


def mint() -> NewKey:
    """A fresh key."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return NewKey(key_id, f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}")


def key_id(key: str) -> str | None:
    """The public part of a key, or None if this has not the form of one."""
    match = _FORM.fullmatch(key)
    return match[1] if match else None


def digest(key: str) -> bytes:
    """The sha256 of a key."""
    return hashlib.sha256(key.encode()).digest()


def matches(key: str, stored: bytes | None) -> bool:
    """Whether `stored` is this key's digest; None (there is no such key) takes as long as a wrong key."""
    equal = hmac.compare_digest(digest(key), stored or _NO_KEY)
    return equal and stored is not None
