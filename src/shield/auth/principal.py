"""A principal is who a request acts for; every job, upload and cursor belongs to one.

With `auth.mode: none` everybody on loopback is `LOCAL`. Other modes make principals from keys or tokens; plain headers
are never trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shield.errors import Forbidden


class Scope(StrEnum):
    """What a credential may do."""

    KB_READ = "kb:read"
    KB_WRITE = "kb:write"
    CRAWL = "crawl"
    JOBS_READ = "jobs:read"
    ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """Someone with a name and scopes; `knowledge_bases=None` means all of them."""

    name: str
    scopes: frozenset[Scope]
    knowledge_bases: frozenset[str] | None = None

    def require(self, scope: Scope) -> None:
        """Pass if this principal has `scope` (or is an administrator).

        Raises:
            Forbidden: it has not; the message names the scope.
        """
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise Forbidden(f"This needs the scope `{scope}`.", scope=str(scope))

    @property
    def everywhere(self) -> bool:
        """Whether all knowledge bases are granted; an administrator's always are."""
        return self.knowledge_bases is None or Scope.ADMIN in self.scopes

    def sees(self, knowledge_base: str, owner: str) -> bool:
        """Whether this knowledge base is granted, or this principal's own."""
        return self.everywhere or knowledge_base in (self.knowledge_bases or ()) or owner == self.name


LOCAL = Principal("local", frozenset(Scope))
