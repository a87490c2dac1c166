"""The jobs: what they say, how they are handed in until they are accepted, and how one waits for their ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastmcp import Client

_NOUNS = ("valve", "pump", "sensor", "boiler", "relay", "gasket", "turbine", "filter", "manifold", "actuator")
_PLACES = ("Aachen", "Bergen", "Cadiz", "Dover", "Evora", "Faro", "Genoa", "Hanover")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    texts: int
    bases: int
    graph: int
    crawls: int
    pages: int
    seconds: float
    """How long there is harm."""
    every: float
    """Mean pause between two blows."""


FULL = Size(texts=2900, bases=50, graph=100, crawls=20, pages=6, seconds=180, every=4)
SHORT = Size(texts=72, bases=4, graph=6, crawls=4, pages=5, seconds=16, every=2.2)


@dataclass(frozen=True)
class Order:
    """One job to hand in; the key makes it the same job however often it is sent."""

    key: str
    base: str
    spec: dict[str, Any]


def bases(size: Size, prefix: str = "") -> list[tuple[str, bool]]:
    """(name, graph) of the knowledge bases."""
    return [(f"{prefix}text-{n}", False) for n in range(size.bases)] + [(f"{prefix}graph", True), (f"{prefix}crawl", False)]


def orders(size: Size, site: str, *, prefix: str = "", text_bases: Iterable[int] | None = None) -> list[Order]:
    """All jobs, the same in every run; those of `text_bases` only, if given."""
    wanted = set(range(size.bases) if text_bases is None else text_bases)
    texts = [Order(f"{prefix}t{n}", f"{prefix}text-{n % size.bases}", _text(n, "t")) for n in range(size.texts) if n % size.bases in wanted]
    graph = [Order(f"{prefix}g{n}", f"{prefix}graph", _text(n, "g")) for n in range(size.graph)]
    crawls = [
        Order(
            f"{prefix}c{n}",
            f"{prefix}crawl",
            {"type": "crawl", "url": f"{site}/site/{n}/0", "max_pages": size.pages, "max_depth": 5, "render": "http"},
        )
        for n in range(size.crawls)
    ]
    every = [*texts, *graph, *crawls]
    random.Random(1).shuffle(every)  # noqa: S311  the same order in every run is the point
    return every


def _text(number: int, kind: str) -> dict[str, Any]:
    noun, place = _NOUNS[number % len(_NOUNS)], _PLACES[number % len(_PLACES)]
    said = (
        f"The {noun} number {number} of the plant in {place} opens at {number * 7 % 900} bar and is checked by Inspector Lind{number % 13}."
    )
    return {"type": "document", "text": said, "source": f"{kind}:{number}"}


@dataclass
class Accepted:
    """Job ids by key, as a 202 told them; a key that answers with two ids is noted."""

    ids: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)

    def note(self, key: str, job_id: str) -> None:
        if self.ids.setdefault(key, job_id) != job_id:
            self.twice.append(key)


async def make_bases(url: str, names: list[tuple[str, bool]]) -> None:
    """Create them; one that exists is fine."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for name, graph in names:
            answer = await client.post("/knowledge-bases", json={"name": name, "graph": graph})
            assert answer.status_code in {201, 409}, answer.text


async def hand_in(urls: list[str], mcp_url: str | None, work: list[Order], accepted: Accepted, *, width: int = 8) -> None:
    """Send every order until it is accepted, as a client with patience would; every tenth crawl or text goes through MCP."""
    queue = asyncio.Queue[tuple[int, Order]]()
    for item in enumerate(work):
        queue.put_nowait(item)
    async with asyncio.TaskGroup() as tasks:
        for number in range(width):
            tasks.create_task(_sender(urls[number % len(urls)], mcp_url if number == 0 else None, queue, accepted))


async def _sender(url: str, mcp_url: str | None, queue: asyncio.Queue[tuple[int, Order]], accepted: Accepted) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        while not queue.empty():
            number, order = queue.get_nowait()
            while True:
                job_id = await (_by_mcp(mcp_url, order, accepted) if mcp_url else _by_rest(client, order, accepted))
                if job_id is not None:
                    accepted.note(order.key, job_id)
                    break
                await asyncio.sleep(0.2)
            if number % 50 == 0:  # a client that lost its answer asks again: the same key is the same job
                again = await _by_rest(client, order, accepted) if not mcp_url else None
                if again is not None:
                    accepted.note(order.key, again)


async def _by_rest(client: httpx.AsyncClient, order: Order, accepted: Accepted) -> str | None:
    try:
        answer = await client.post(
            "/lightrag/ingest-async", json={"knowledge_base": order.base, "spec": order.spec}, headers={"Idempotency-Key": order.key}
        )
    except httpx.HTTPError as error:
        accepted.refusals[type(error).__name__] = accepted.refusals.get(type(error).__name__, 0) + 1
        return None
    if answer.status_code == 202:
        return str(answer.json()["job_id"])
    code = answer.json().get("code", str(answer.status_code)) if answer.headers.get("content-type", "").endswith("json") else "?"
    accepted.refusals[code] = accepted.refusals.get(code, 0) + 1
    assert answer.status_code in {429, 500, 503}, answer.text
    return None


async def _by_mcp(url: str, order: Order, accepted: Accepted) -> str | None:
    spec = {name: value for name, value in order.spec.items() if name != "type"}
    tool = "crawl_web" if order.spec["type"] == "crawl" else "ingest_doc"
    try:
        async with asyncio.timeout(20), Client(url) as client:
            result = await client.call_tool(tool, {**spec, "knowledge_base": order.base}, raise_on_error=False)
    except Exception as error:  # noqa: BLE001  whatever a dying server makes the client raise: the client tries again
        accepted.refusals[type(error).__name__] = accepted.refusals.get(type(error).__name__, 0) + 1
        return None
    body = result.structured_content or {}
    if result.is_error:
        code = str(body.get("code"))
        accepted.refusals[code] = accepted.refusals.get(code, 0) + 1
        return None
    return str(body["job_id"])
