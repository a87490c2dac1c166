"""`LocalShield`: the use cases answered in this process."""

from __future__ import annotations

import asyncio

from shield import __version__
from shield.auth import Principal
from shield.service.keys import ApiKeys
from shield.service.models import Health, KeyCreate, KeyCreated, KeyList, KeyRotate, KeyView
from shield.service.operator import OperatorCases
from shield.service.parts import Parts


class LocalShield(OperatorCases):
    """Implements `shield.service.port.Shield` on the parts of one process."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.api_keys = ApiKeys(parts.engine, parts.settings.auth)

    async def keys(self, who: Principal) -> KeyList:
        """All API keys, without their secrets."""
        return await self.api_keys.keys(who)

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        """Make an API key."""
        return await self.api_keys.create_key(who, request)

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        """End a key at once."""
        return await self.api_keys.revoke_key(who, key_id)

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        """A successor with the same rights."""
        return await self.api_keys.rotate_key(who, key_id, request)

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
