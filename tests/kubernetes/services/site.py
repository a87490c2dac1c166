"""A site to crawl, and what was asked of it: `python -m tests.kubernetes.services.site`; SITE_PAGES pages on port 8080.

`/-/visits` tells the paths that were asked for so far, `/-/ready` only that the site serves; neither is counted.
"""

from __future__ import annotations

import asyncio
import os
import signal

from aiohttp import web

from tests.peers.site import Site


async def main() -> None:
    """Serve until SIGTERM."""
    async with Site(pages=int(os.environ.get("SITE_PAGES", "30")), host="0.0.0.0", port=8080) as site:

        async def visits(_: web.Request) -> web.Response:
            return web.json_response([visit.path for visit in site.log if not visit.path.startswith("/-/")])

        site.route("/-/visits", visits)
        site.put("/-/ready", "ready", content_type="text/plain")
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
