"""The leaves as a catalogue: all of them, the one of a code, and which of them are a page's or document's own fault."""

from __future__ import annotations

from typing import Any

from shield.errors.base import ShieldError
from shield.errors.dependencies import DependencyRejected, InternalError

_HERE = f"{__package__}."  # a test's own errors are not of the catalogue
_CONTENT_AREAS = frozenset({"page", "document", "robots", "egress", "crawl"})


def leaf_errors() -> dict[str, type[ShieldError]]:
    """All leaf classes by code, in order of code; the docs and the proofs walk this."""

    def walk(cls: type[ShieldError]) -> list[type[ShieldError]]:
        below = cls.__subclasses__()
        return [leaf for sub in below for leaf in walk(sub)] if below else [cls]

    return {cls.code: cls for cls in sorted(walk(ShieldError), key=lambda c: c.code) if cls.__module__.startswith(_HERE)}


def blames_content(error: ShieldError) -> bool:
    """Whether the page or document itself is the cause, so that it is an outcome and not a failure of the job's run."""
    return isinstance(error, DependencyRejected) or error.code.partition(".")[0] in _CONTENT_AREAS


def from_code(code: str, message: str | None = None, **details: Any) -> ShieldError:
    """The error of a stored code, for outcomes read back from the database; an unknown code becomes `InternalError`."""
    return leaf_errors().get(code, InternalError)(message, **details)
