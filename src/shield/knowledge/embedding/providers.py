"""Embedders behind an HTTP endpoint: OpenAI-compatible (`/v1/embeddings`) and Ollama (`/api/embed`).

Every call goes through a circuit breaker (`embedding`, or `shadow` for the second model) and has a time limit. What the endpoint
answers is checked (number of vectors, length, finite values) and brought to length 1. What a refusal means is decided in
`resilience.dependency`; an error never quotes the endpoint's body, which may hold our text.

A refused batch is halved until the text that is the cause stands alone, so a batch that is only too big as a whole passes, and
no text suffers for its neighbour. A text refused alone is asked for once more by its first half (a vector of a beginning finds
more than none, and is what endpoints that cut silently give); if that is refused too, the error is that text's.
"""

from __future__ import annotations

import base64
import binascii
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shield.errors import DependencyMisconfigured, DependencyRejected, DependencyUnavailable
from shield.resilience import Breakers
from shield.resilience.endpoint import JsonEndpoint, RotatingKey
from shield.settings import EmbeddingSettings

SERVICE = "embedding"
Floats = npt.NDArray[np.float32]
_MAX_NUMBER = 32
"""Bytes that one number of a vector may take in an answer."""
_MAX_REST = 1024 * 1024
_MOST_COUNTED = 10**9
_PIECE = re.compile(r"\w+|[^\w\s]")


class _HttpEmbedder(ABC):
    """What both endpoints share; a subclass knows the path, the body and where the vectors are."""

    path = ""

    def __init__(
        self, settings: EmbeddingSettings, breakers: Breakers, service: str = SERVICE, counted: Callable[[int], None] | None = None
    ) -> None:
        self._counted = counted
        self._service = service
        self._settings = settings
        self._breakers = breakers
        key = RotatingKey(settings.api_key, settings.api_key_file)
        self._plain = False
        """Whether the endpoint knows no `encoding_format`, as LiteLLM before most models."""
        self._endpoint = JsonEndpoint(service, "embedding endpoint", settings.base_url or "", key)

    @property
    def model(self) -> str:
        """The model's name as the endpoint knows it."""
        return self._settings.model

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._settings.dim

    def count_tokens(self, text: str) -> int:
        """An estimate: a word is one token for every six bytes begun, a punctuation mark one."""
        return sum(1 + (len(piece.encode("utf-8", "replace")) - 1) // 6 for piece in _PIECE.findall(text))

    async def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of the texts, in their order; the port's docstring lists the errors."""
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), self._settings.batch):
            part = list(texts[start : start + self._settings.batch])
            out[start : start + len(part)] = await self._some(part)
        return out

    async def close(self) -> None:
        """Close the connection."""
        await self._endpoint.close()

    async def _some(self, texts: list[str]) -> Floats:
        try:
            return await self._breakers.call(self._service, partial(self._request, texts))
        except DependencyRejected:
            if len(texts) == 1:
                return await self._beginning(texts[0])
            middle = len(texts) // 2
            return np.concatenate([await self._some(texts[:middle]), await self._some(texts[middle:])])

    async def _beginning(self, text: str) -> Floats:
        """The vector of a refused text's first half."""
        return await self._breakers.call(self._service, partial(self._request, [text[: (len(text) + 1) // 2]]))

    async def _request(self, texts: list[str]) -> Floats:
        most = len(texts) * self.dim * _MAX_NUMBER + _MAX_REST
        body = self._body(texts)
        try:
            answer = await self._endpoint.post(self.path, body, max_bytes=most, timeout=self._settings.timeout.total_seconds())
        except DependencyRejected as error:
            if error.details.get("parameter") not in body:
                raise
            self._plain = True
            return await self._request(texts)
        try:
            rows, tokens = self._rows(answer), self._tokens(answer)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, binascii.Error) as error:
            raise self._endpoint.unreadable() from error
        if self._counted is not None and isinstance(tokens, int):
            self._counted(min(max(tokens, 0), _MOST_COUNTED))
        return self._checked(rows, len(texts))

    def _checked(self, rows: list[Floats], expected: int) -> Floats:
        if len(rows) != expected:
            raise DependencyUnavailable("The embedding endpoint answers with another number of vectors.", service=self._service)
        lengths = {row.size for row in rows}
        if lengths != {self.dim}:
            found = ", ".join(str(length) for length in sorted(lengths))
            raise DependencyMisconfigured(
                f"The embedding model answers with vectors of length {found}, not {self.dim}.", service=self._service
            )
        vectors = np.stack(rows)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise DependencyUnavailable("The embedding endpoint answers with vectors without a direction.", service=self._service)
        unit: Floats = (vectors / norms).astype(np.float32)
        return unit

    @abstractmethod
    def _body(self, texts: list[str]) -> dict[str, Any]:
        """The request for these texts."""

    @abstractmethod
    def _rows(self, answer: Any) -> list[Floats]:
        """The vectors in an answer."""

    @abstractmethod
    def _tokens(self, answer: Any) -> object:
        """What an answer says about the tokens it took."""


class OpenAIEmbedder(_HttpEmbedder):
    """Any endpoint that speaks OpenAI's `/v1/embeddings`: LiteLLM, vLLM, TEI, OpenAI itself."""

    path = "/v1/embeddings"

    def _body(self, texts: list[str]) -> dict[str, Any]:
        return {"model": self.model, "input": texts} | ({} if self._plain else {"encoding_format": "base64"})

    def _rows(self, answer: Any) -> list[Floats]:
        items = sorted(answer["data"], key=lambda item: int(item["index"]))
        return [_vector(item["embedding"]) for item in items]

    def _tokens(self, answer: Any) -> object:
        return (answer.get("usage") or {}).get("prompt_tokens")


class OllamaEmbedder(_HttpEmbedder):
    """Ollama's `/api/embed`."""

    path = "/api/embed"

    def _body(self, texts: list[str]) -> dict[str, Any]:
        return {"model": self.model, "input": texts}

    def _rows(self, answer: Any) -> list[Floats]:
        return [_vector(row) for row in answer["embeddings"]]

    def _tokens(self, answer: Any) -> object:
        return answer.get("prompt_eval_count")


def _vector(value: Any) -> Floats:
    """A vector given as base64 of little-endian float32, or as numbers."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    return np.asarray(value, dtype=np.float32).reshape(-1)
