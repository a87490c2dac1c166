"""Does an installation work? A client of MCP ingests a text, waits for its job, finds the text again, deletes it, and finds it no more.

That is the way of every document: MCP server, orchestrator, database, queue, worker, index. The text holds a word that was never said before, so what is
found is what this run stored; it is deleted even if a step before failed. A server that does not answer or does not know the key yet is asked again,
since right after an installation both are being made; what is refused for any other reason is said at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

_AGAIN = 2.0
"""Seconds between two tries of a server that is not up yet."""
_WAIT = 20
"""Seconds that one poll of a job may wait."""
_CLEAN_UP = 15.0
"""Seconds for removing what a failed run stored."""


class SmokeFailed(Exception):
    """A step did not do what it should; the message says which and what came instead."""


class Tools(Protocol):
    """The tools of an MCP server."""

    async def __call__(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """A tool's structured answer.

        Raises:
            ToolRefused: the tool answered with an error.
            Unanswered: nobody answered, or the credential is not known (yet).
        """


class Unanswered(Exception):
    """The server cannot be asked."""


class ToolRefused(Exception):
    """A tool's own error: its code and message."""


@dataclass(frozen=True)
class Smoke:
    """One run.

    Args:
        tools: how to call them.
        say: told each step that succeeded.
        knowledge_base: must exist; holds the text while the run lasts.
        word: one that nothing stored so far contains.
    """

    tools: Tools
    say: Callable[[str], None]
    knowledge_base: str = "default"
    word: str = field(default_factory=lambda: f"smoke{secrets.token_hex(8)}")

    async def run(self, within: float) -> None:
        """Do it all in so many seconds, and a few more to clean up after a failure.

        Raises:
            SmokeFailed: it does not work.
        """
        problem = ""
        try:
            async with asyncio.timeout(within):
                while True:
                    try:
                        await self._call("list_knowledge_bases")
                        break
                    except Unanswered as error:
                        problem = f"; the MCP server did not answer: {error}"
                        await asyncio.sleep(_AGAIN)
                problem = ""
                self.say("the MCP server answers")
                await self._round()
        except TimeoutError as error:
            raise SmokeFailed(f"not done within {within:g} s{problem}") from error
        except Unanswered as error:
            raise SmokeFailed(f"the MCP server does not answer any more: {error}") from error

    async def _round(self) -> None:
        text = f"The word of this run is {self.word}. It was ingested to see whether it can be found."
        job = await self._call("ingest_doc", text=text, source=self._source, title="Smoke test", **self._base)
        try:
            await self._ended(job["job_id"], "ingested")
            await self._delete(await self._found())
        except BaseException:  # also when the time is up: nothing of a run stays
            await self._clean_up()
            raise
        if await self._find():
            raise SmokeFailed("the text was deleted, but a search still finds it")
        self.say("deleted, and found no more")

    @property
    def _base(self) -> dict[str, str]:
        return {"knowledge_base": self.knowledge_base}

    @property
    def _source(self) -> str:
        return f"smoke:{self.word}"

    async def _found(self) -> str:
        """The document that a search leads to."""
        found = await self._find()
        if not found:
            raise SmokeFailed(f"the text was ingested, but a search for {self.word} does not find it")
        self.say(f"found again as {found[0]['source']}")
        return str(found[0]["document_id"])

    async def _find(self) -> list[dict[str, Any]]:
        answer = await self._call("qdrant_find", query=f"What is {self.word}?", limit=5, **self._base)
        return [passage for passage in answer["results"] if self.word in passage["text"]]

    async def _delete(self, document_id: str) -> None:
        job = await self._call("delete_document", document_id=document_id, **self._base)
        await self._ended(job["job_id"], "deleted")

    async def _clean_up(self) -> None:
        """Delete what a failed run may have stored, if that is possible at all."""
        try:
            async with asyncio.timeout(_CLEAN_UP):
                stored = await self._call("list_documents", source_prefix=self._source, limit=1, **self._base)
                for document in stored["documents"]:
                    await self._delete(document["document_id"])
        except (SmokeFailed, Unanswered, TimeoutError) as error:
            self.say(f"{self._source} may be left behind: {str(error) or 'no time'}")

    async def _ended(self, job_id: str, what: str) -> None:
        while True:
            job = await self._call("get_job_status", job_id=job_id, wait_seconds=_WAIT)
            if job["status"] == "completed":
                return self.say(f"{what} by job {job_id}")
            if job["status"] in {"failed", "cancelled"}:
                raise SmokeFailed(f"job {job_id} is {job['status']}: {(job.get('error') or {}).get('message', 'no reason given')}")

    async def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        try:
            return await self.tools(name, arguments)
        except ToolRefused as error:
            raise SmokeFailed(f"{name} was refused: {error}") from error


def mcp_tools(url: str, token: str | None) -> Tools:
    """The tools behind an address. Each call is a connection of its own: servers may be replaced while a run lasts."""
    from fastmcp import Client  # before a clock runs: loading it takes seconds

    async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            async with Client(url, auth=token) as client:
                answer = await client.call_tool(name, arguments, raise_on_error=False)
        except Exception as error:  # the boundary to the client, which has many ways to say that nobody answers
            raise Unanswered(f"{type(error).__name__}: {error}") from error
        content = dict(answer.structured_content or {})
        if answer.is_error:
            raise ToolRefused(f"{content.get('message', 'no message')} [{content.get('code', 'no code')}]")
        return content

    return call
