"""Embedding: text to vectors, by the builtin model or a provider, each text once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shield.errors import ConfigInvalid

if TYPE_CHECKING:
    from shield.knowledge.embedding.port import Embedder
    from shield.resilience import Breakers
    from shield.settings import EmbeddingSettings


def create_embedder(settings: EmbeddingSettings, breakers: Breakers) -> Embedder:
    """The embedder that the settings name; nothing is loaded or called yet.

    Raises:
        ConfigInvalid: the builtin provider is asked for another model or dimension than it has.
    """
    if settings.provider == "builtin":
        from shield.knowledge.embedding.builtin import DIM, MODEL, BuiltinEmbedder

        if (settings.model, settings.dim) != (MODEL, DIM):
            raise ConfigInvalid(f"SHIELD_EMBEDDING_PROVIDER=builtin has the model {MODEL} with {DIM} dimensions only.")
        return BuiltinEmbedder(batch=settings.batch, threads=settings.threads)
    from shield.knowledge.embedding.providers import OllamaEmbedder, OpenAIEmbedder

    return OpenAIEmbedder(settings, breakers) if settings.provider == "openai" else OllamaEmbedder(settings, breakers)
