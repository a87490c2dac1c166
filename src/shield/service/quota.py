"""How many bytes a principal may send in 24 hours: what its jobs took in, and uploads that no job has taken yet.

Intake holds the limit exactly for jobs (`shield.jobs.intake`). A file's size is known only once it has arrived; so an upload is refused
before it begins if the day is used up, and removed again if it went beyond. Uploads sent at once may pass the limit by what was under
way, which each is told at its end.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.database.engine import database_errors
from shield.errors import BytesQuotaExceeded
from shield.settings import JobSettings

_SENT = text("""
    SELECT coalesce(sum(bytes), 0) AS bytes, extract(epoch FROM min(created_at) + interval '1 day' - now()) AS free_after FROM (
      SELECT payload_bytes AS bytes, created_at FROM jobs
       WHERE principal = :principal AND payload_bytes > 0 AND created_at > now() - interval '1 day'
      UNION ALL
      SELECT size, created_at FROM uploads
       WHERE principal = :principal AND job_id IS NULL AND stored AND created_at > now() - interval '1 day') AS day""")


async def check_bytes(engine: AsyncEngine, principal: str, settings: JobSettings, *, arrived: bool) -> None:
    """Pass if this principal may still send something; with `arrived`, if what it has sent is within the limit.

    Raises:
        BytesQuotaExceeded: the day is used up.
    """
    with database_errors():
        async with engine.connect() as connection:
            sent = (await connection.execute(_SENT, {"principal": principal})).one()
    limit = int(settings.max_bytes_day)
    if sent.bytes > limit or (sent.bytes == limit and not arrived):
        pause = settings.poll_after.total_seconds()
        raise BytesQuotaExceeded(retry_after=max(float(sent.free_after or 0), pause), limit=limit)
