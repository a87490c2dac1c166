"""A language model for tests: speaks OpenAI's chat completions and Ollama's chat, answers by rule, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from aiohttp import web

from tests.peers.serving import serving

_PASSAGE = re.compile(r"<passage-(\w+) n=(\d+)>\n(.*?)\n</passage-\1>", re.DOTALL)


@dataclass
class LlmPeer:
    """What it was asked, and what it shall do next."""

    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    statuses: deque[int] = field(default_factory=deque)
    """HTTP statuses of the next calls; 200 once there are none."""
    reply: Callable[[str], str] | None = None
    """The answer to a prompt; by default the extraction of its passages."""
    finish: str = "stop"
    key: str | None = None
    """The only key let in; None: everybody is."""
    refuses: set[str] = field(default_factory=set)
    """Parameters that the model does not take, as OpenAI's reasoning models say it."""
    counts: tuple[Any, Any] = (11, 7)
    """Tokens in and out that an answer tells."""
    silent: bool = False
    delay: float = 0.01
    """Seconds that each answer takes."""
    busy: int = 0
    widest: int = 0

    async def openai(self, request: web.Request) -> web.Response:
        text = await self._take(request)
        if isinstance(text, web.Response):
            return text
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": self.finish}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": self.counts[0], "completion_tokens": self.counts[1]}})

    async def ollama(self, request: web.Request) -> web.Response:
        text = await self._take(request)
        if isinstance(text, web.Response):
            return text
        message = {"role": "assistant", "content": text}
        counts = {"prompt_eval_count": self.counts[0], "eval_count": self.counts[1]}
        return web.json_response({"message": message, "done_reason": self.finish, **counts})

    async def openai_embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        refusal = self._refusal(request, body)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        base64_asked = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": b64encode(vector(text)).decode() if base64_asked else list(array("f", vector(text))),
            }
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return refusal or web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def ollama_embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        answer = {"model": body["model"], "embeddings": [list(array("f", vector(text))) for text in texts], "prompt_eval_count": len(texts)}
        return self._refusal(request, body) or web.json_response(answer)

    async def _take(self, request: web.Request) -> str | web.Response:
        body = await request.json()
        self.calls.append(body)
        self.keys.append(request.headers.get("authorization"))
        self.busy += 1
        self.widest = max(self.widest, self.busy)
        try:
            if self.silent:
                await asyncio.sleep(30)
            await asyncio.sleep(self.delay)
        finally:
            self.busy -= 1
        prompt = body["messages"][-1]["content"]
        return self._refusal(request, body) or (self.reply or extraction)(prompt)

    def _refusal(self, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.Response(status=401, text="this quotes the document")
        if refused := next((name for name in body if name in self.refuses), None):
            error = {"message": "Unsupported parameter", "param": refused, "code": "unsupported_parameter"}
            return web.json_response({"error": error}, status=400)
        status = self.statuses.popleft() if self.statuses else 200
        if status == 200:
            return None
        return web.Response(status=status, headers={"retry-after": "7"} if status == 429 else {}, text="this quotes the document")


def extraction(prompt: str) -> str:
    """Each passage's capitalised words as entities, each related to the next."""
    passages = []
    for _, number, text in _PASSAGE.findall(prompt):
        words = list(dict.fromkeys(re.findall(r"\b[A-Z][a-z]+\b", text)))
        entities = [{"name": word, "type": "concept", "description": f"{word} is spoken of."} for word in words]
        pairs = pairwise(words)
        relations = [{"source": a, "target": b, "keywords": "near", "description": f"{a} and {b}."} for a, b in pairs]
        passages.append({"n": int(number), "entities": entities, "relationships": relations})
    return json.dumps({"passages": passages}) if passages else "All of it, in short."


def vector(text: str, dim: int = 8) -> bytes:
    """A text's vector as little-endian float32: each word votes for one number."""
    numbers = [0.1] * dim
    for word in text.lower().split():
        numbers[sum(word.encode()) % dim] += 1
    return array("f", numbers).tobytes()


@asynccontextmanager
async def llm_peer() -> AsyncIterator[LlmPeer]:
    """A running peer on a free loopback port."""
    peer = LlmPeer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", peer.openai)
    app.router.add_post("/api/chat", peer.ollama)
    app.router.add_post("/v1/embeddings", peer.openai_embeddings)
    app.router.add_post("/api/embed", peer.ollama_embed)
    async with serving(app) as peer.url:
        yield peer
