"""`LocalShield`: the use cases answered in this process."""

from __future__ import annotations

import asyncio

from shield import __version__
from shield.service.knowledge_bases import BaseCases
from shield.service.models import Health


class LocalShield(BaseCases):
    """Implements `shield.service.port.Shield` on the parts of one process."""

    async def health(self) -> Health:
        """`down` if PostgreSQL is; `degraded` if anything else is not well."""
        found = list(await asyncio.gather(*(probe() for probe in self.parts.probes)))
        if any(item.status == "down" for item in found):
            status = "down"
        elif any(item.status == "degraded" for item in found):
            status = "degraded"
        else:
            status = "ok"
        return Health(status=status, version=__version__, dependencies=found)
