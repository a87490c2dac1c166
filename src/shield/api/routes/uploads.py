"""Uploads: files on their way in, streamed, never held in memory.

`POST /uploads` takes a form and stores the file in one go. `POST /uploads/announce` answers with a one-time URL, whose token is the only
credential its `PUT` needs: an agent can hand that URL to something that holds the file and nothing else.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query
from pydantic import StringConstraints
from starlette.requests import Request

from shield import errors
from shield.api.dependencies import Caller, Port, Text
from shield.api.examples import body_examples
from shield.api.multipart import open_file
from shield.api.responses import BODY, fails
from shield.service.models import UploadCreate, UploadView

router = APIRouter(tags=["uploads"])
_FILE = (*BODY, errors.DocumentTooLarge, errors.BytesQuotaExceeded)
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary", "description": "The file."}},
                }
            }
        },
    }
}
_BYTES: dict[str, Any] = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.post("/uploads", status_code=201, responses=fails(*_FILE), openapi_extra=_FORM)
async def upload(request: Request, shield: Port, who: Caller) -> UploadView:
    """Upload a file in one go; pass its `upload_id` to `POST /lightrag/ingest-async`."""
    file = await open_file(request)
    return await shield.upload(who, file.filename, file.mime, file.content)


@router.post("/uploads/announce", status_code=201, responses=fails(*BODY))
async def announce_upload(
    request: Annotated[UploadCreate, Body(openapi_examples=body_examples("announce_upload"))], shield: Port, who: Caller
) -> UploadView:
    """Announce a file; the answer's `upload_url` takes one PUT of its bytes."""
    return await shield.create_upload(who, request)


@router.put("/uploads/{upload_id}/content", responses=fails(*_FILE, errors.UnknownUpload, identified=False), openapi_extra=_BYTES)
async def put_upload(
    upload_id: Annotated[UUID, Path(description="The upload's id.")],
    token: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=256)], Query(description="The one-time token of `upload_url`.")
    ],
    request: Request,
    shield: Port,
) -> UploadView:
    """Store the bytes of an announced file, once."""
    async with aclosing(request.stream()) as content:
        return await shield.put_upload(upload_id, token, content)
