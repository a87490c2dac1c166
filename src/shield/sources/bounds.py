"""Where a crawl may go: its scope of hosts, and the globs over the paths of links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shield.sources.globs import Globs
from shield.sources.urls import Scope


@dataclass(frozen=True)
class Bounds:
    """Build it with `Bounds.of`."""

    scope: Scope
    include: Globs
    exclude: Globs
    name: str
    """Equal for equal bounds."""

    @classmethod
    def of(cls, url: str, domains: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> Bounds:
        """The bounds of a crawl that begins at `url`.

        Raises:
            UrlInvalid, InvalidRequest: as `Scope.of`.
        """
        scope = Scope.of(url, domains)
        name = repr([str(scope.start), *map(sorted, (map(repr, scope.exact), map(repr, scope.below), include, exclude))])
        return cls(scope, Globs(include), Globs(exclude), name)

    def wanted(self, url: str) -> bool:
        """Whether a link to the canonical `url` is followed."""
        return url in self.scope and (not self.include or url in self.include) and url not in self.exclude
