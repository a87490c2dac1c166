"""Liveness and readiness. Neither asks who is calling; liveness touches nothing, so a slow dependency never restarts a pod."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from shield import __version__
from shield.api.dependencies import Port
from shield.api.responses import fails
from shield.service.models import Health

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"
    version: str = __version__


@router.get("/healthz", responses={status: answer for status, answer in fails(identified=False).items() if status != 503})
async def healthz() -> Alive:
    """Liveness: the process answers."""
    return Alive()


def _readiness() -> dict[int | str, dict[str, Any]]:
    responses = fails(identified=False)
    down = {"application/json": {"schema": {"$ref": "#/components/schemas/Health"}}}
    responses[503] = {
        "description": "Something that everything needs is down (`status: down`), or the state cannot be told.",
        "content": down | responses[503]["content"],
    }
    return responses


@router.get("/readyz", responses=_readiness())
async def readyz(response: Response, shield: Port) -> Health:
    """Readiness: 200 when `ok` or `degraded`, 503 when `down`; names the state of each dependency."""
    health = await shield.health()
    if health.status == "down":
        response.status_code = 503
    return health
