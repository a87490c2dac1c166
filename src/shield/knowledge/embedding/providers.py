"""Embedders behind an HTTP endpoint: OpenAI-compatible (`/v1/embeddings`) and Ollama (`/api/embed`).

Every call goes through a circuit breaker (`embedding`, or `shadow` for the second model) and has a time limit. What the endpoint answers is checked (number of
vectors, length, finite values) and brought to length 1; an error never quotes the endpoint's body, which may hold our text.
Redirects are not followed and proxy variables are not read: the key goes to the configured address only.
"""

from __future__ import annotations

import base64
import binascii
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shield.errors import DependencyMisconfigured, DependencyUnavailable
from shield.resilience import Breakers, dependency_error
from shield.settings import EmbeddingSettings

if TYPE_CHECKING:
    import httpx

SERVICE = "embedding"
Floats = npt.NDArray[np.float32]
_PIECE = re.compile(r"\w+|[^\w\s]")


class _HttpEmbedder(ABC):
    """What both endpoints share; a subclass knows the path, the body and where the vectors are."""

    path = ""

    def __init__(self, settings: EmbeddingSettings, breakers: Breakers, service: str = SERVICE) -> None:
        self._service = service
        self._settings = settings
        self._breakers = breakers
        self._client: httpx.AsyncClient | None = None

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
            out[start : start + len(part)] = await self._breakers.call(self._service, partial(self._request, part))
        return out

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()

    async def _request(self, texts: list[str]) -> Floats:
        import httpx

        try:
            answer = await self._http().post(self._url(), json=self._body(texts))
        except httpx.HTTPError as error:
            raise DependencyUnavailable("The embedding endpoint does not answer.", service=self._service) from error
        if answer.status_code != 200:
            raise dependency_error(self._service, answer.status_code, _retry_after(answer.headers.get("retry-after")))
        try:
            rows = self._rows(answer.json())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, binascii.Error) as error:
            raise DependencyUnavailable("The embedding endpoint answers in an unknown form.", service=self._service) from error
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

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            key = self._settings.api_key
            headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
            self._client = httpx.AsyncClient(headers=headers, timeout=self._settings.timeout.total_seconds(), trust_env=False)
        return self._client

    def _url(self) -> str:
        base = (self._settings.base_url or "").rstrip("/")
        first = self.path.split("/", 2)[1]
        return base.removesuffix(f"/{first}") + self.path  # the base may be given with or without `/v1`, `/api`

    @abstractmethod
    def _body(self, texts: list[str]) -> dict[str, Any]:
        """The request for these texts."""

    @abstractmethod
    def _rows(self, answer: Any) -> list[Floats]:
        """The vectors in an answer."""


class OpenAIEmbedder(_HttpEmbedder):
    """Any endpoint that speaks OpenAI's `/v1/embeddings`: LiteLLM, vLLM, TEI, OpenAI itself."""

    path = "/v1/embeddings"

    def _body(self, texts: list[str]) -> dict[str, Any]:
        return {"model": self.model, "input": texts, "encoding_format": "base64"}

    def _rows(self, answer: Any) -> list[Floats]:
        items = sorted(answer["data"], key=lambda item: int(item["index"]))
        return [_vector(item["embedding"]) for item in items]


class OllamaEmbedder(_HttpEmbedder):
    """Ollama's `/api/embed`."""

    path = "/api/embed"

    def _body(self, texts: list[str]) -> dict[str, Any]:
        return {"model": self.model, "input": texts}

    def _rows(self, answer: Any) -> list[Floats]:
        return [_vector(row) for row in answer["embeddings"]]


def _vector(value: Any) -> Floats:
    """A vector given as base64 of little-endian float32, or as numbers."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    return np.asarray(value, dtype=np.float32).reshape(-1)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form is not worth a parser here."""
    return float(value) if value and value.isdecimal() else None
