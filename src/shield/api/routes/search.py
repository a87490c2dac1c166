"""Asking, searching, and storing notes: the routes that answer at once."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from shield import errors
from shield.api.dependencies import Caller, Port
from shield.api.examples import body_examples
from shield.api.responses import BODY, DEPENDENCIES, fails
from shield.service.models import Answer, FindRequest, FindResult, QueryRequest, StoreRequest, StoreResult

router = APIRouter(tags=["search"])
_KB = (errors.UnknownKnowledgeBase, errors.KnowledgeBaseNameInvalid)


@router.post(
    "/lightrag/query",
    responses=fails(*BODY, *_KB, *DEPENDENCIES, errors.QueryTooShort, errors.QueryTimeout, errors.KnowledgeBaseHasNoGraph),
)
async def query(request: Annotated[QueryRequest, Body(openapi_examples=body_examples("query"))], shield: Port, who: Caller) -> Answer:
    """Ask a question; the answer cites its sources, or says `found: false`."""
    return await shield.query(who, request)


@router.post("/find", responses=fails(*BODY, *_KB, *DEPENDENCIES, errors.QueryTooShort, errors.QueryTimeout, errors.CursorInvalid))
async def find(request: Annotated[FindRequest, Body(openapi_examples=body_examples("find"))], shield: Port, who: Caller) -> FindResult:
    """Search passages, with filters and pages."""
    return await shield.find(who, request)


@router.post("/notes", responses=fails(*BODY, *_KB, *DEPENDENCIES, errors.DocumentEmpty, errors.BytesQuotaExceeded))
async def store_note(
    request: Annotated[StoreRequest, Body(openapi_examples=body_examples("store_note"))], shield: Port, who: Caller
) -> StoreResult:
    """Store a note and index it; the same source replaces it."""
    return await shield.store(who, request)
