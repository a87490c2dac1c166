"""API keys, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path
from pydantic import StringConstraints

from shield import errors
from shield.api.dependencies import Caller, Port
from shield.api.examples import body_examples
from shield.api.responses import BODY, fails
from shield.service.models import KeyCreate, KeyCreated, KeyList, KeyRotate, KeyView

router = APIRouter(prefix="/keys", tags=["keys"])
_KeyId = Annotated[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{8}$")], Path(description="The key's id, its second part.")]


@router.get("", responses=fails())
async def list_keys(shield: Port, who: Caller) -> KeyList:
    """All keys, newest first, without their secrets."""
    return await shield.keys(who)


@router.post("", status_code=201, responses=fails(*BODY))
async def create_key(
    request: Annotated[KeyCreate, Body(openapi_examples=body_examples("create_key"))], shield: Port, who: Caller
) -> KeyCreated:
    """Make a key; its secret is shown this once."""
    return await shield.create_key(who, request)


@router.delete("/{key_id}", responses=fails(errors.UnknownKey))
async def revoke_key(key_id: _KeyId, shield: Port, who: Caller) -> KeyView:
    """End a key at once."""
    return await shield.revoke_key(who, key_id)


@router.post("/{key_id}/rotate", status_code=201, responses=fails(*BODY, errors.UnknownKey))
async def rotate_key(
    key_id: _KeyId, request: Annotated[KeyRotate, Body(openapi_examples=body_examples("rotate_key"))], shield: Port, who: Caller
) -> KeyCreated:
    """Make a successor with the same rights; the old key ends after a grace period."""
    return await shield.rotate_key(who, key_id, request)
