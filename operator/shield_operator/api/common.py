"""Scalars that the kinds share. The bounds are the server's (`shield.service.models`), so that what the API server accepts, the pod can run.

The order for the pod travels as one annotation, and Kubernetes allows 256 KiB of annotations an object: addresses are therefore ASCII, and
metadata is small (100 addresses of 2 048 characters, 32 values of 256 and 8 annotations of 256 fit in the worst case).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, StringConstraints

from shield_operator.api.rules import Rule, matches, quoted

_PRINTABLE = r"[!#-;=?-\[\]_a-z~]"  # ASCII without space, control characters and " < > \ ^ ` { | }
URL_PATTERN = rf"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)(:[0-9]{{1,5}})?([/?#]{_PRINTABLE}*)?$"
URL_RULE = matches(URL_PATTERN, "must be an absolute http or https URL in ASCII, without user name or password")

Url = Annotated[str, StringConstraints(min_length=1, max_length=2048), URL_RULE]
Sitemap = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    matches(f"^auto$|{URL_PATTERN}", "must be auto, or an absolute http or https URL in ASCII, without user name or password"),
]
Domain = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253),
    matches(
        r"^(\*\.|\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?(:[0-9]{1,5})?$|^\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?$",
        "must be a host name such as docs.example.com, with *. before it for all below it, and :port if it is not the usual one",
    ),
]
UrlGlob = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256),
    matches(r"^[/*][^\x00-\x1f\x7f]*$", "must be a pattern of paths that begins with / or *, such as /docs/**"),
]
FileGlob = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256),
    matches(r"^[^\x00-\x1f\x7f/][^\x00-\x1f\x7f]*$", "must be a pattern of paths below path, such as **/*.pdf"),
]

_PATH, _CLIMBS = r"^[^\x00-\x1f\x7f/\\][^\x00-\x1f\x7f\\]*$", r"(^|/)\.\.(/|$)"
RelativePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1024),
    Rule(
        f"self.matches({quoted(_PATH)}) && !self.matches({quoted(_CLIMBS)})",
        "must be a path below the claim's root, without .. and not beginning with /",
        holds=lambda path: bool(re.search(_PATH, path)) and not re.search(_CLIMBS, path),
    ),
]

_KEY, _CONTROL = r"^[A-Za-z0-9_.-]{1,64}$", r"[\x00-\x1f]"
Metadata = Annotated[
    dict[str, Annotated[str, StringConstraints(max_length=256)]],
    Field(max_length=32),
    Rule(
        # A pattern on keys would pass the API server's cost limit, as the length of a key has no bound there; the rest is ours to check.
        "self.all(key, size(key) <= 64)",
        "a key may have at most 64 letters, digits, dots, dashes and underscores",
        holds=lambda mapping: all(re.search(_KEY, key) for key in mapping),
    ),
    Rule(
        f"!self.exists(key, self[key].matches({quoted(_CONTROL)}))",
        "a value may not hold control characters",
        holds=lambda mapping: not any(re.search(_CONTROL, value) for value in mapping.values()),
    ),
]

Whole32 = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]

DNS_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_NAME = "a lower-case letter, then letters, digits and -, not ending with -"


def name_rule(length: int, why: str) -> Rule:
    """Of an object's root, where of the metadata only the name can be seen: RFC 1035, and short enough for what is made of it."""
    return Rule(
        f"size(self.metadata.name) <= {length} && self.metadata.name.matches({quoted(DNS_LABEL)})",
        f"metadata.name must be {_NAME}, of at most {length} characters: {why}",
        holds=lambda resource: len(resource.metadata.name) <= length and bool(re.search(DNS_LABEL, resource.metadata.name)),
    )
