"""Golden questions: asked of both tracks, so that a canary that answers well-formed nonsense is noticed without anybody's traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from shield.errors import ConfigInvalid

_TOP = 5


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Question:
    """A question, and the source that must be among the first five hits."""

    query: str
    source: str
    knowledge_base: str = "default"


def read_questions(path: Path) -> tuple[Question, ...]:
    """A JSON list of `{"query", "source", "knowledge_base"?}`.

    Raises:
        ConfigInvalid: the file is none.
    """
    try:
        return tuple(TypeAdapter(list[Question]).validate_json(path.read_bytes(), strict=True))
    except (OSError, ValidationError) as error:
        raise ConfigInvalid(f"{path} is no file of golden questions: a JSON list of query, source and knowledge_base.") from error


async def finds(url: str, questions: tuple[Question, ...], *, token: str | None, header: str | None, limit: float = 30) -> set[Question]:
    """Which of them an MCP endpoint answers with their source.

    Args:
        url: the endpoint.
        questions: what to ask.
        token: the credential.
        header: with `always` as its value, it leads to the canary; None: wherever the weights lead.
        limit: seconds for one question. One that takes longer, or fails, is not found.
    """
    from fastmcp import Client
    from fastmcp.client.transports import StreamableHttpTransport

    headers = {header: "always"} if header else {}
    found = set()
    for question in questions:
        arguments: dict[str, Any] = {"query": question.query, "limit": _TOP, "knowledge_base": question.knowledge_base}
        try:
            async with Client(StreamableHttpTransport(url, headers=headers, auth=token), timeout=limit) as client:
                answer = await client.call_tool("qdrant_find", arguments, raise_on_error=False)
        except Exception:  # noqa: BLE001, S112  a canary that cannot be asked has not found it
            continue
        hits = (answer.structured_content or {}).get("results", [])
        if any(hit.get("source") == question.source for hit in hits):
            found.add(question)
    return found
