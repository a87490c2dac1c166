"""What a request shows: the one `Authorization: Bearer` header, and nothing else is looked at.

A key never comes from a query string, where logs and referrers would keep it. What is here reads forms only; whether a
credential is valid is decided by who checks it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence

from shield.errors import CredentialInvalid

MAX_TOKEN = 12 * 1024
"""Longest credential, in characters: with the other headers it fits what HTTP servers take."""
MAX_FOREIGN = 8 * 1024
"""Longest token of an identity provider: what it grants must fit into the token that passes it on between our processes."""
MAX_NAME = 255
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750


def bearer(values: Sequence[str]) -> str | None:
    """The token in the Authorization headers of a request; None if it has none.

    Raises:
        CredentialInvalid: there are two, or it is of another scheme or form.
    """
    if not values:
        return None
    scheme, _, token = values[0].strip().partition(" ")
    token = token.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
        raise CredentialInvalid
    return token


def header_of(token: str) -> dict[str, object]:
    """The header of a JWT, unchecked; empty if it has none that can be read."""
    part = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def token_type(token: str) -> str | None:
    """The `typ` that a JWT claims to be."""
    kind = header_of(token).get("typ") if token.count(".") == 2 else None
    return kind if isinstance(kind, str) else None


def is_name(value: object) -> bool:
    """Whether this may name a principal: short, visible characters only."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and value == value.strip()
