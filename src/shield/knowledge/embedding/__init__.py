"""Embedding: text to vectors, by the builtin model or a provider, each text once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shield.errors import ConfigInvalid

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from shield.knowledge.embedding.choice import Embedders
    from shield.knowledge.embedding.port import Embedder
    from shield.resilience import Breakers
    from shield.settings import EmbeddingSettings, Settings

Counted = Callable[[int], None]


def create_embedder(
    settings: EmbeddingSettings, breakers: Breakers, service: str = "embedding", counted: Counted | None = None
) -> Embedder:
    """The embedder that the settings name, behind the circuit breaker `service`; nothing is loaded or called yet.

    `counted` takes the tokens that an endpoint tells after each call.

    Raises:
        ConfigInvalid: the builtin provider is asked for another model or dimension than it has.
    """
    if settings.provider == "builtin":
        from shield.knowledge.embedding.builtin import DIM, MODEL, BuiltinEmbedder

        if (settings.model, settings.dim) != (MODEL, DIM):
            raise ConfigInvalid(f"SHIELD_EMBEDDING_PROVIDER=builtin has the model {MODEL} with {DIM} dimensions only.")
        return BuiltinEmbedder(batch=settings.batch, threads=settings.threads)
    from shield.knowledge.embedding.providers import OllamaEmbedder, OpenAIEmbedder

    return (OpenAIEmbedder if settings.provider == "openai" else OllamaEmbedder)(settings, breakers, service, counted)


def create_embedders(settings: Settings, breakers: Breakers, engine: AsyncEngine, counted: Counted | None = None) -> Embedders:
    """The model for new knowledge bases and, beside it, the other one that the settings name and the builtin one.

    Raises:
        ConfigInvalid: the builtin provider is asked for another model or dimension than it has.
    """
    from shield.knowledge.embedding.choice import Embedders
    from shield.settings import EmbeddingSettings

    shadow = create_embedder(settings.shadow, breakers, "shadow", counted)
    builtin = create_embedder(EmbeddingSettings(batch=settings.embedding.batch, threads=settings.embedding.threads), breakers)
    return Embedders([create_embedder(settings.embedding, breakers, counted=counted), shadow, builtin], engine)
