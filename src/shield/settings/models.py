"""Models that embed, and models that write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from shield.settings.base import Duration, Group, seconds


def _endpoint_address(value: str | None) -> str | None:
    """An endpoint's address must be one, and holds no credential: that is the key's place."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an http:// or https:// address without credentials")
    return value


EndpointAddress = Annotated[str | None, AfterValidator(_endpoint_address)]


class EmbeddingSettings(Group):
    provider: Literal["builtin", "openai", "ollama"] = "builtin"
    """Who embeds: `builtin` = MiniLM on onnxruntime in this process; the others need `base_url`."""
    model: str = "all-minilm-l6-v2"
    """Model name; a collection's key is model and dimension."""
    dim: int = Field(384, ge=8, le=8192)
    """Length of a vector."""
    base_url: EndpointAddress = None
    """Address of an OpenAI-compatible or Ollama endpoint."""
    api_key: SecretStr | None = None
    """Key for that endpoint."""
    api_key_file: Path | None = None
    """File that holds the key; read again when it changes and when the endpoint refuses the key, so a rotated key needs no restart."""
    batch: int = Field(16, ge=1, le=512)
    """Texts a batch."""
    threads: int = Field(2, ge=1, le=64)
    """Threads of the builtin model."""
    timeout: Duration = seconds(60)
    """Longest single call."""


class ShadowSettings(EmbeddingSettings):
    """A second embedding model beside `embedding`: for a reindex, and for bases that are still on the other one."""

    provider: Literal["builtin", "openai", "ollama"] = "builtin"
    """Who embeds with a second model, to which a reindex moves a knowledge base, or from which; as `SHIELD_EMBEDDING_PROVIDER`."""
    model: str = "all-minilm-l6-v2"
    """The second model's name; bases that name it are embedded with it."""


class LlmSettings(Group):
    provider: Literal["none", "openai", "ollama"] = "none"
    """Who writes answers: `none` = extractive answers and a rule-based graph; `openai` = any OpenAI-compatible endpoint such as LiteLLM."""
    base_url: EndpointAddress = None
    """Address of the endpoint, for example http://127.0.0.1:11434."""
    model: str | None = None
    """Model name as the endpoint knows it."""
    api_key: SecretStr | None = None
    """Key for the endpoint."""
    api_key_file: Path | None = None
    """File that holds the key; read again when it changes and when the endpoint refuses the key, so a rotated key needs no restart."""
    max_tokens: int = Field(4096, ge=64, le=131_072)
    """Most tokens the model may answer with; an answer that needs more is refused."""
    concurrency: int = Field(4, ge=1, le=64)
    """Calls in flight at once."""
    timeout: Duration = seconds(120)
    """Longest extraction call."""
    query_timeout: Duration = seconds(40)
    """Longest call while a question waits; later, the answer is extractive and says so."""
