"""A tokenizer for LightRAG, which wants one to measure texts; its own would be downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence


class PackedTokens:
    """A tokenizer for LightRAG: lossless, thread-safe, without a vocabulary; each piece's bytes are packed into one number."""

    _piece = re.compile(r" ?[A-Za-z]{1,6}| ?\d{1,3}| ?[^\sA-Za-z0-9]|\s+", re.DOTALL)

    def encode(self, content: str) -> list[int]:
        """Numbers, one a piece."""
        return [int.from_bytes(b"\x01" + piece.encode("utf-8", "surrogatepass"), "big") for piece in self._piece.findall(content)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text again."""
        packed = (token.to_bytes((token.bit_length() + 7) // 8, "big")[1:] for token in tokens)
        return b"".join(packed).decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: dict[int, object]) -> PackedTokens:
        return self
