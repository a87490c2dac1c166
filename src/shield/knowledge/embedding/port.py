"""The port of an embedder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Embedder(Protocol):
    """Turns texts into unit vectors; safe to call from several tasks at once."""

    @property
    def model(self) -> str:
        """Name; with `dim` the key of a collection and of the cache."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def count_tokens(self, text: str) -> int:
        """Wordpieces of a text, without special tokens (a fair estimate where the provider does not tell)."""

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """An array of shape (len(texts), dim), rows of length 1, in the texts' order.

        Raises:
            DependencyUnavailable, DependencyMisconfigured, DependencyThrottled, CircuitOpen: the provider's fault.
            DependencyRejected: these texts are the cause.
        """

    async def close(self) -> None:
        """Let go of the model or the connection."""
