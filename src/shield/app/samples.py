"""The sample knowledge base `shield-docs`, and the first question asked of it.

It is built once, on an empty data directory, by ordinary jobs of a principal of its own; that principal's crawls alone may
visit this server's own `/samples/` (see `SAMPLES`). The question goes the way of every agent: through the MCP endpoint,
with a real MCP client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from shield.auth import Principal, Scope
from shield.errors import KnowledgeBaseExists
from shield.service.models import IngestRequest, JobView, KnowledgeBaseCreate
from shield.service.port import Shield

SAMPLES = Principal("shield:samples", frozenset(Scope))
"""Who the samples belong to; the only principal whose crawls may visit this server."""
BASE = "shield-docs"
QUESTION = "What happens when a worker is killed in the middle of a job?"
_FILES = ("operating-limits.pdf", "team-handbook.docx", "connecting-an-agent.md")


def directory() -> Path | None:
    """Where the sample files are: inside the installed package, or in the source tree."""
    for candidate in (Path(str(files("shield"))) / "examples", Path(__file__).parents[3] / "examples"):
        if (candidate / "site" / "index.html").is_file():
            return candidate
    return None


async def submit(shield: Shield, base_url: str, folder: Path) -> list[tuple[str, JobView]]:
    """Create the base and hand in its jobs; (what, job) each. Does nothing if the base exists."""
    try:
        await shield.create_knowledge_base(SAMPLES, KnowledgeBaseCreate(name=BASE, description="How Shield works: the samples."))
    except KnowledgeBaseExists:
        return []
    jobs = [("sample site", await shield.ingest(SAMPLES, _crawl(base_url)))]
    for name in _FILES:
        upload = await shield.upload(SAMPLES, name, None, _blocks(folder / name))
        spec = {"type": "document", "upload_id": upload.upload_id, "source": f"samples:{name}"}
        jobs.append((name, await shield.ingest(SAMPLES, IngestRequest.model_validate({"knowledge_base": BASE, "spec": spec}))))
    return jobs


async def unfinished(shield: Shield) -> list[tuple[str, JobView]]:
    """Sample jobs that an earlier start left behind; they go on by themselves."""
    jobs = (await shield.jobs(SAMPLES, knowledge_base=BASE, limit=100)).jobs
    return [("samples (resumed)", job) for job in jobs if job.finished_at is None]


async def ask(mcp_url: str, question: str, token: str | None = None) -> dict[str, Any]:
    """Ask over MCP, as an agent would, with a token where one is needed; returns the tool's structured answer."""
    from fastmcp import Client

    async with Client(mcp_url, auth=token) as client:
        result = await client.call_tool("lightrag_query", {"query": question, "knowledge_base": BASE})
    return dict(result.structured_content or {})


def _crawl(base_url: str) -> IngestRequest:
    spec = {"type": "crawl", "url": f"{base_url}/samples/index.html", "max_pages": 9, "max_depth": 2}
    return IngestRequest.model_validate({"knowledge_base": BASE, "spec": spec})


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(path.read_bytes)
