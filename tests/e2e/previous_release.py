"""A worker of release 0.1.0 on a database somebody else migrates: run it with a Python that knows that release.

That release had no server mode: it is given a Qdrant server by its own setting, and its migration is left out. Everything else is its own.
"""

import asyncio
import importlib
import signal
from contextlib import AsyncExitStack
from typing import Any

import shield
from shield.settings import load
from shield.telemetry.logs import configure


async def main() -> None:
    """Run jobs until SIGTERM."""
    assert shield.__version__ == "0.1.0", shield.__file__
    settings = load()
    configure("json", "info")
    assert settings.postgres.dsn is not None

    async def not_ours(*_: Any, **__: Any) -> None: ...

    assembly: Any = importlib.import_module("shield.app.assembly")  # that release's, whose names are its own
    assembly.upgrade = not_ours
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        made: Any = await assembly.assemble(settings, settings.postgres.dsn.get_secret_value(), stack)
        print("ready", made.worker.id, flush=True)
        await asyncio.gather(*made.work(stop).values())


asyncio.run(main())
