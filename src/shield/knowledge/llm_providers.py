"""Language models behind an HTTP endpoint: OpenAI-compatible (`/v1/chat/completions`) and Ollama (`/api/chat`).

Every call goes through the circuit breaker `llm`, waits its turn among a bounded number, and has one time limit for all of
that. An error never quotes the endpoint's body, which may hold our text. Redirects are not followed and proxy variables are not
read: the key goes to the configured address only. Temperature 0; an answer that was cut off at a length limit is an error,
since half an answer reads like a whole one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from shield.errors import DependencyRejected, DependencyUnavailable
from shield.knowledge.llm import Completion
from shield.resilience import Breakers, dependency_error
from shield.settings import LlmSettings

if TYPE_CHECKING:
    import httpx

SERVICE = "llm"
_MAX_ANSWER = 4 * 1024 * 1024


class _HttpLlm(ABC):
    """What both endpoints share; a subclass knows the path, the body and where the answer is."""

    provider = ""
    path = ""

    def __init__(self, settings: LlmSettings, breakers: Breakers) -> None:
        self._settings = settings
        self._breakers = breakers
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._client: httpx.AsyncClient | None = None

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"{self.provider}:{self._settings.model}"

    async def complete(self, prompt: str, *, system: str | None = None, json: bool = False, timeout: timedelta | None = None) -> Completion:  # noqa: ASYNC109  the port's argument: one limit over queue, breaker and call
        """The model's answer; the port's docstring lists the errors."""
        messages = [{"role": "system", "content": system}] if system else []
        body = self._body([*messages, {"role": "user", "content": prompt}], json)
        limit = (timeout or self._settings.timeout).total_seconds()

        async def call() -> Completion:
            try:
                async with asyncio.timeout_at(end):
                    return await self._request(body)
            except TimeoutError as error:
                raise DependencyUnavailable("The language model did not answer in time.", service=SERVICE) from error

        end = asyncio.get_running_loop().time() + limit
        try:
            async with asyncio.timeout_at(end):
                await self._turns.acquire()
        except TimeoutError as error:
            raise DependencyUnavailable("The language model is busy with earlier calls.", service=SERVICE) from error
        try:
            return await self._breakers.call(SERVICE, call)
        finally:
            self._turns.release()

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    async def _request(self, body: dict[str, Any]) -> Completion:
        import httpx

        try:
            async with self._http().stream("POST", self._url(), json=body) as answer:
                if answer.status_code != 200:
                    raise dependency_error(SERVICE, answer.status_code, _retry_after(answer.headers.get("retry-after")))
                content = b""
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > _MAX_ANSWER:
                        raise DependencyUnavailable("The language model does not stop answering.", service=SERVICE)
        except httpx.HTTPError as error:
            raise DependencyUnavailable("The language model does not answer.", service=SERVICE) from error
        return self._read(content)

    def _read(self, content: bytes) -> Completion:
        import json

        try:
            answer = json.loads(content)
            completion, cut = self._completion(answer), self._was_cut(answer)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DependencyUnavailable("The language model answers in an unknown form.", service=SERVICE) from error
        if cut:
            raise DependencyRejected("The language model's answer was cut off at its length limit.", service=SERVICE)
        if not completion.text.strip():
            raise DependencyUnavailable("The language model answers with nothing.", service=SERVICE)
        return completion

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            key = self._settings.api_key
            headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
            limits = httpx.Limits(max_connections=self._settings.concurrency)
            self._client = httpx.AsyncClient(headers=headers, timeout=None, limits=limits, trust_env=False)  # noqa: S113  `complete` holds the limit
        return self._client

    def _url(self) -> str:
        base = (self._settings.base_url or "").rstrip("/")
        first = self.path.split("/", 2)[1]
        return base.removesuffix(f"/{first}") + self.path  # the base may be given with or without `/v1`, `/api`

    @abstractmethod
    def _body(self, messages: list[dict[str, str]], json: bool) -> dict[str, Any]:
        """The request for these messages."""

    @abstractmethod
    def _completion(self, answer: Any) -> Completion:
        """What an answer says."""

    @abstractmethod
    def _was_cut(self, answer: Any) -> bool:
        """Whether the answer ended at a limit."""


class OpenAILlm(_HttpLlm):
    """Any endpoint that speaks OpenAI's chat completions: LiteLLM, vLLM, llama.cpp, OpenAI itself."""

    provider = "openai"
    path = "/v1/chat/completions"

    def _body(self, messages: list[dict[str, str]], json: bool) -> dict[str, Any]:
        form = {"response_format": {"type": "json_object"}} if json else {}
        return {"model": self._settings.model, "messages": messages, "temperature": 0, "stream": False} | form

    def _completion(self, answer: Any) -> Completion:
        usage = answer.get("usage") or {}
        text = answer["choices"][0]["message"]["content"] or ""
        return Completion(str(text), int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))

    def _was_cut(self, answer: Any) -> bool:
        return bool(answer["choices"][0].get("finish_reason") == "length")


class OllamaLlm(_HttpLlm):
    """Ollama's `/api/chat`."""

    provider = "ollama"
    path = "/api/chat"

    def _body(self, messages: list[dict[str, str]], json: bool) -> dict[str, Any]:
        form = {"format": "json"} if json else {}
        return {"model": self._settings.model, "messages": messages, "stream": False, "options": {"temperature": 0}} | form

    def _completion(self, answer: Any) -> Completion:
        text = answer["message"]["content"] or ""
        return Completion(str(text), int(answer.get("prompt_eval_count") or 0), int(answer.get("eval_count") or 0))

    def _was_cut(self, answer: Any) -> bool:
        return bool(answer.get("done_reason") == "length")


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form is not worth a parser here."""
    return float(value) if value and value.isdecimal() else None
