"""Language models behind an HTTP endpoint: OpenAI-compatible (`/v1/chat/completions`) and Ollama (`/api/chat`).

Every call goes through the circuit breaker `llm`, waits its turn among a bounded number, and has one time limit for all of
that. What an answer means is decided in `resilience.dependency`; an error never quotes the endpoint's body, which may hold our
text. Temperature 0; an answer is at most `llm.max_tokens` long, and one that was cut off there is an error, since half an
answer reads like a whole one. A parameter that a model does not take is left out, or renamed, from its first refusal on.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any

from shield.errors import DependencyRejected, DependencyUnavailable
from shield.knowledge.llm import SERVICE, Completion
from shield.resilience import Breakers
from shield.resilience.endpoint import JsonEndpoint, RotatingKey
from shield.settings import LlmSettings

_MAX_ANSWER = 4 * 1024 * 1024
_MOST_COUNTED = 10**9


class _HttpLlm(ABC):
    """What both endpoints share; a subclass knows the path, the body and where the answer is."""

    provider = ""
    path = ""

    def __init__(self, settings: LlmSettings, breakers: Breakers) -> None:
        self._settings = settings
        self._breakers = breakers
        self._turns = asyncio.Semaphore(settings.concurrency)
        key = RotatingKey(settings.api_key, settings.api_key_file)
        self._not_taken: set[str] = set()
        """What the model refused: OpenAI's reasoning models name the limit differently and take no temperature."""
        self._endpoint = JsonEndpoint(SERVICE, "language model", settings.base_url or "", key, connections=settings.concurrency)

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"{self.provider}:{self._settings.model}"

    async def complete(self, prompt: str, *, system: str | None = None, json: bool = False, timeout: timedelta | None = None) -> Completion:  # noqa: ASYNC109  the port's argument: one limit over queue, breaker and call
        """The model's answer; the port's docstring lists the errors."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        loop = asyncio.get_running_loop()
        end = loop.time() + (timeout or self._settings.timeout).total_seconds()
        try:
            async with asyncio.timeout_at(end):
                await self._turns.acquire()
        except TimeoutError as error:
            raise DependencyUnavailable("The language model is busy with earlier calls.", service=SERVICE) from error
        try:
            return await self._breakers.call(SERVICE, lambda: self._request(messages, json, end))
        finally:
            self._turns.release()

    async def close(self) -> None:
        """Close the connection."""
        await self._endpoint.close()

    async def _request(self, messages: list[dict[str, str]], json: bool, end: float) -> Completion:
        while True:
            body = self._body(messages, json)
            left = max(0.0, end - asyncio.get_running_loop().time())
            try:
                answer = await self._endpoint.post(self.path, body, max_bytes=_MAX_ANSWER, timeout=left)
            except DependencyRejected as error:
                parameter = error.details.get("parameter")
                if parameter not in body:  # the last one left out ends it
                    raise
                self._not_taken.add(parameter)
            else:
                return self._read(answer)

    def _read(self, answer: Any) -> Completion:
        try:
            completion, cut = self._completion(answer), self._was_cut(answer)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise self._endpoint.unreadable() from error
        counts = {"tokens_in": completion.tokens_in, "tokens_out": completion.tokens_out}
        if cut:
            raise DependencyRejected("The language model's answer was cut off at its length limit.", service=SERVICE, **counts)
        if not completion.text.strip():
            raise DependencyUnavailable("The language model answers with nothing.", service=SERVICE, **counts)
        return completion

    @abstractmethod
    def _body(self, messages: list[dict[str, str]], json: bool) -> dict[str, Any]:
        """The request for these messages, without the parameters that are not taken."""

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
        limit = "max_completion_tokens" if "max_tokens" in self._not_taken else "max_tokens"
        body: dict[str, Any] = {"model": self._settings.model, "messages": messages, "stream": False, limit: self._settings.max_tokens}
        if "temperature" not in self._not_taken:
            body["temperature"] = 0
        if json and "response_format" not in self._not_taken:
            body["response_format"] = {"type": "json_object"}
        return body

    def _completion(self, answer: Any) -> Completion:
        usage = answer.get("usage") or {}
        text = answer["choices"][0]["message"]["content"] or ""
        return Completion(str(text), _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))

    def _was_cut(self, answer: Any) -> bool:
        return bool(answer["choices"][0].get("finish_reason") == "length")


class OllamaLlm(_HttpLlm):
    """Ollama's `/api/chat`."""

    provider = "ollama"
    path = "/api/chat"

    def _body(self, messages: list[dict[str, str]], json: bool) -> dict[str, Any]:
        form = {"format": "json"} if json else {}
        options = {"temperature": 0, "num_predict": self._settings.max_tokens}
        return {"model": self._settings.model, "messages": messages, "stream": False, "options": options} | form

    def _completion(self, answer: Any) -> Completion:
        text = answer["message"]["content"] or ""
        return Completion(str(text), _count(answer.get("prompt_eval_count")), _count(answer.get("eval_count")))

    def _was_cut(self, answer: Any) -> bool:
        return bool(answer.get("done_reason") == "length")


def _count(value: object) -> int:
    """A count of tokens as an endpoint tells it; 0 for what is none."""
    return min(max(value, 0), _MOST_COUNTED) if isinstance(value, int) and not isinstance(value, bool) else 0
