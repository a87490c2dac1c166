"""Liveness and readiness. Neither asks who is calling; liveness touches nothing, so a slow dependency never restarts a pod."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from shield import __version__, errors
from shield.api.dependencies import Port
from shield.api.responses import fails
from shield.service.models import Health

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"] = "ok"
    version: str = __version__


@router.get("/healthz", responses=fails())
async def healthz() -> Alive:
    """Liveness: the process answers."""
    return Alive()


_DOWN: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "Something that everything needs is down (`status: down`)."}
}


@router.get("/readyz", responses={**{k: v for k, v in fails().items() if k != errors.DatabaseUnavailable.status}, **_DOWN})
async def readyz(response: Response, shield: Port) -> Health:
    """Readiness: 200 when `ok` or `degraded`, 503 when `down`; names the state of each dependency."""
    health = await shield.health()
    if health.status == "down":
        response.status_code = 503
    return health
