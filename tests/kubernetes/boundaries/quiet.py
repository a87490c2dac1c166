"""Reconciled twice, nothing changes: every IngestJob of the whole run is looked at again by an operator that has forgotten everything."""

from __future__ import annotations

import asyncio
import signal

from tests.kubernetes.boundaries.stage import Stage
from tests.kubernetes.boundaries.world import OPERATOR
from tests.kubernetes.kubelet import Behaviour


async def unchanged(stage: Stage) -> None:
    """One that runs, one that waits and one that is suspended are added to those that have ended."""
    world = stage.world
    await stage.submit_held("runs")
    await stage.submit("waits", do=Behaviour(starts=False))
    await stage.submit("rests", suspend=True)
    await stage.until_condition("rests", "Suspended", "True", "Suspended")
    await stage.until_condition("waits", "Accepted", "True", "Accepted")
    await stage.until_condition("runs", "Complete", "False", "Running")
    await asyncio.sleep(2 * float(OPERATOR["SHIELD_OPERATOR_PROGRESS_INTERVAL"]))
    await world.replica.idle()
    before, written = await _versions(stage), len(world.door.writes)
    await world.replica.down(signal.SIGTERM)
    world.replica.up()
    await world.replica.leads()
    await asyncio.sleep(float(OPERATOR["SHIELD_OPERATOR_RESYNC"]) * 1.5)  # every key comes a third time
    await world.replica.idle()
    after = await _versions(stage)
    if changed := {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}:
        raise AssertionError(f"reconciled again, and changed: {sorted(changed)}")
    late = [f"{write.method} {write.path}" for write in world.door.writes[written:] if "/ingestjobs" in write.path or "/jobs" in write.path]
    if late:
        raise AssertionError(f"reconciled again, and written: {late}")
    if len(before) < len(stage.expected) + 2:  # the Jobs of the two that have one
        raise AssertionError(f"there was little to look at: {sorted(before)}")
    stage.release("runs")
    await stage.change("rests", suspend=False)
    await stage.delete("ingestjobs", "waits")
    del stage.expected["waits"]


async def _versions(stage: Stage) -> dict[str, str]:
    found = {}
    for plural in ("ingestjobs", "jobs"):
        for obj in await stage.world.api.list(plural):
            meta = obj["metadata"]
            found[f"{plural} {meta['namespace']}/{meta['name']}"] = meta["resourceVersion"]
    return found
