"""All leaf errors on all four surfaces: MCP, REST, the command line and a job's outcomes, compared with the one catalogue.

The port is made to raise each leaf; what comes out at the other end of a real HTTP connection, a real MCP client and the
real command line must hold the leaf's code, sentence and advice. For the outcomes, a job records one of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from fastmcp import Client

from shield.app.embedded import EmbeddedApp
from shield.auth import Principal
from shield.cli.app import run
from shield.errors import ShieldError, from_code, leaf_errors
from shield.jobs.model import DocumentOutcome, OutcomeStatus
from shield.service.local import LocalShield
from shield.service.models import FindRequest, FindResult
from shield.worker.context import Completed, Ending, JobContext
from shield.worker.pipeline import IngestHandler
from tests.proofs.harness import app_on, data_directory, ended

REFERENCE = Path(__file__).parents[2] / "docs" / "API_REFERENCE.md"


async def _forced(_shield: LocalShield, _who: Principal, request: FindRequest) -> FindResult:
    raise from_code(request.query)


async def _record_all(_handler: IngestHandler, context: JobContext) -> Ending:
    for number, (code, leaf) in enumerate(leaf_errors().items(), 1):
        await context.outcome(DocumentOutcome(number=number, source=code, status=OutcomeStatus.FAILED, code=code, message=leaf.sentence()))
    return Completed("partial")


def _mute(error: ShieldError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "advice": "", "retryable": error.retryable}


async def prove(*, sabotage: bool) -> bool:
    """True if no surface lacks any leaf, and the reference names all."""
    leaves = leaf_errors()
    missing: dict[str, list[str]] = {}
    with (
        patch.object(LocalShield, "find", _forced),
        patch.object(IngestHandler, "run", _record_all),
        patch.object(ShieldError, "public", _mute) if sabotage else contextlib.nullcontext(),
    ):
        async with data_directory() as directory, app_on(directory) as app:
            missing["MCP"] = await _over_mcp(app, leaves)
            missing["REST"] = await _over_rest(app, leaves)
            missing["CLI"] = await _over_cli(directory, leaves)
            missing["outcomes"] = await _in_outcomes(app, leaves)
    reference = REFERENCE.read_text(encoding="utf-8")
    missing["API_REFERENCE"] = [code for code, leaf in leaves.items() if f"`{code}`" not in reference or leaf.advice not in reference]
    for surface, codes in missing.items():
        print(f"{surface}: {len(leaves) - len(codes)} of {len(leaves)} errors, {len(codes)} missing {codes[:5] if codes else ''}")
    return not any(missing.values())


def _same(leaf: type[ShieldError], shown: dict[str, Any]) -> bool:
    return (shown.get("code"), shown.get("message", shown.get("detail")), shown.get("advice")) == (leaf.code, leaf.sentence(), leaf.advice)


def _parsed(text: str) -> dict[str, Any]:
    """What was printed or answered; nothing, if it is no JSON object: the error is then lacking."""
    try:
        shown = json.loads(text)
    except ValueError:
        return {}
    return shown if isinstance(shown, dict) else {}


async def _over_mcp(app: EmbeddedApp, leaves: dict[str, type[ShieldError]]) -> list[str]:
    lacking = []
    async with Client(f"{app.info.url}/mcp") as client:
        for code, leaf in leaves.items():
            result = await client.call_tool("qdrant_find", {"query": code}, raise_on_error=False)
            if not result.is_error or not _same(leaf, dict(result.structured_content or {})):
                lacking.append(code)
    return lacking


async def _over_rest(app: EmbeddedApp, leaves: dict[str, type[ShieldError]]) -> list[str]:
    lacking = []
    async with httpx.AsyncClient(base_url=app.info.url) as http:
        for code, leaf in leaves.items():
            answer = await http.post("/find", json={"query": code})
            if answer.status_code != leaf.status or not _same(leaf, _parsed(answer.text)):
                lacking.append(code)
    return lacking


async def _over_cli(directory: Path, leaves: dict[str, type[ShieldError]]) -> list[str]:
    lacking = []
    with patch.dict(os.environ, {"SHIELD_DATA_DIR": str(directory)}):
        for code, leaf in leaves.items():
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                status = await asyncio.to_thread(run, ["find", code, "--json"])
            shown = _parsed(out.getvalue()).get("error", {})
            if status != leaf.exit_code or not _same(leaf, shown):
                lacking.append(code)
    return lacking


async def _in_outcomes(app: EmbeddedApp, leaves: dict[str, type[ShieldError]]) -> list[str]:
    shown: dict[str, dict[str, Any]] = {}
    async with Client(f"{app.info.url}/mcp") as client:
        job = await ended(client, (await client.call_tool("ingest_doc", {"text": "anything", "source": "x"})).data.job_id)
        while True:
            shown |= {outcome["source"]: outcome for outcome in job["outcomes"]}
            if job["next_outcome"] is None:
                break
            more = await client.call_tool("get_job_status", {"job_id": job["job_id"], "outcomes_after": job["next_outcome"]})
            job = dict(more.structured_content or {})
    return [code for code, leaf in leaves.items() if not _same(leaf, shown.get(code, {}))]
