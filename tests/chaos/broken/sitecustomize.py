"""The fence broken on purpose, for `python -m tests.chaos --sabotage`: a run that has lost its job writes all the same.

Python imports this module by itself in each process of that fleet; the product has no switch for it.
"""

import os

if os.environ.get("SHIELD_MODE") == "server":
    from uuid import UUID

    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shield.database import fence
    from shield.jobs import claims

    async def everybody_may(connection: AsyncConnection, job_id: UUID, fence: int) -> None:
        """Ask nothing."""

    fence.require_fence = everybody_may
    for name in ("_LOCK_HELD", "_BEAT", "_PROGRESS", "_OUTCOME"):
        statement = str(getattr(claims, name))
        setattr(claims, name, text(statement.replace("fence = :fence", ":fence > 0")))
