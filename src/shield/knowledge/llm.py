"""The port of a language model: one call, one answer, with a time limit; none is configured by default."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shield.resilience import Breakers
    from shield.settings import LlmSettings

SERVICE = "llm"
"""The model's name among the dependencies."""


@dataclass(frozen=True)
class Completion:
    """What a model answered, and what it counted (0 where it does not tell)."""

    text: str
    tokens_in: int
    tokens_out: int


class Llm(Protocol):
    """A language model; safe to call from several tasks at once, a bounded number of calls is out at a time."""

    @property
    def name(self) -> str:
        """Provider and model, the key of what is cached from it."""

    async def complete(self, prompt: str, *, system: str | None = None, json: bool = False, timeout: timedelta | None = None) -> Completion:  # noqa: ASYNC109  one limit over queue, breaker and call
        """The model's answer, never empty.

        Args:
            prompt: the user's turn.
            system: instructions before it.
            json: ask the endpoint for a JSON object; the caller still has to check.
            timeout: longest wait in all, the queue included; the setting's extraction limit where None.

        Raises:
            DependencyUnavailable, DependencyMisconfigured, DependencyThrottled, CircuitOpen: the endpoint's fault.
            DependencyRejected: this prompt is the cause.
        """

    async def close(self) -> None:
        """Let go of the connection."""


def create_llm(settings: LlmSettings, breakers: Breakers) -> Llm | None:
    """The model that the settings name, or None; nothing is called yet."""
    if settings.provider == "none":
        return None
    from shield.knowledge.llm_providers import OllamaLlm, OpenAILlm

    return OpenAILlm(settings, breakers) if settings.provider == "openai" else OllamaLlm(settings, breakers)
