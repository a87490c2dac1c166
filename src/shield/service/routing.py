"""`mode: auto`: which path answers a question, and why.

Two paths are open. The *fast* one (`naive`) takes the passages that match the question; it is right for looking something up. The *deep*
one (`mix`) also walks the graph of entities and relations; it is right where the answer lies between passages: comparisons, relations,
causes, overviews.

Rules come first, in their order; the first that fits decides and names itself. What no rule claims is decided by likeness: a linear
classifier (ridge regression on the embeddings of the examples in `routing_examples.toml`, solved once a process) whose reason is the
example most alike. No language model is asked. How often all this is right is measured on committed questions that neither the rules
nor the examples were made with (`tests/data/routing_questions.toml`, docs/QUERYING.md).
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from shield.errors import ShieldError

Path = Literal["naive", "mix"]
Vectors = npt.NDArray[np.float32]
_RIDGE = 1.0
"""Weight of the penalty; the result does not depend on it between 0.1 and 3 (measured)."""


class Embedder(Protocol):
    """Makes unit vectors of texts."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text."""

    async def embed_query(self, text: str) -> Vectors:
        """Of a caller's question, which is stored nowhere; the search that follows finds it made already."""


@dataclass(frozen=True)
class Route:
    """The path taken, and the reason in a short sentence."""

    mode: Path
    why: str


_FLAGS = re.IGNORECASE | re.UNICODE


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), _FLAGS)


_QUOTED = re.compile(r"[\"“„«][^\"”“»]{3,}[\"”“»]")
_COMPARES = _any_of(
    r"\bcompar(?:e|es|ed|ing|ison)\b",
    r"\bcontrast\b",
    r"\bdiffer(?:s|ence|ences|ent from)?\b",
    r"\bversus\b|\bvs\.?\b",
    r"\bpros and cons\b|\badvantages?\b.*\bdisadvantages?\b|\btrade-?offs?\b",
    r"\bin common\b|\bsimilarit(?:y|ies)\b",
    r"\bvergl(?:eich|ichen)\w*\b|\bunterschied\w*\b|\bunterscheide[nt]\b|\bgemeinsam\w*\b|\bvor- und nachteile\b",
)
_RELATES = _any_of(
    r"\brelat(?:e|es|ed|ion|ions|ionship|ionships)\b(?! to me)",
    r"\bconnect(?:s|ed|ion|ions)?\b|\blink(?:s|ed) (?:to|with)\b|\bdepend(?:s|ed)? on\b|\bdependenc(?:y|ies) (?:of|between)\b",
    r"\binterplay\b|\binteract(?:s|ion|ions)?\b|\bwork(?:s|ed)? (?:together|with)\b|\bbetween\b.*\band\b",
    r"\baffect(?:s|ed)?\b|\bimpact(?:s|ed)?\b|\binfluenc(?:e|es|ed)\b|\bconsequences?\b|\beffects? (?:of|on)\b",
    r"\b(?:led|leads?) to\b|\bcause[sd]?\b|\bresult(?:s|ed)? in\b|\brole\b.*\b(?:play|plays|of|in)\b",
    r"\bhäng(?:en|t)\b.*\bzusammen\b|\bzusammenh[aä]ng\w*\b|\bzusammenspiel\b|\bbeziehung\w*\b|\bauswirk\w*\b|\bbeeinfluss\w*\b|\brolle spiel\w*\b",
)
_OVERVIEWS = _any_of(
    r"\boverview\b|\bsummar(?:y|ise|ize|ises|izes)\b|\boutline\b|\bbig picture\b",
    r"\b(?:main|key|central|common|most important) (?:themes?|topics?|points?|ideas?|findings?)\b|\b(?:themes?|topics?)\b",
    r"\beverything\b.*\b(?:about|known)\b|\btell me (?:all|everything)\b|\bacross all\b",
    r"\bdescribe\b|\bexplain (?:how|why)\b|\bevol(?:ve|ved|ution)\b|\bover the years\b",
    r"\büberblick\b|\büberblicks\w*\b|\bfasse?\b.*\bzusammen\b|\bzusammenfass\w*\b|\bthemen\b|\berklär\w* (?:wie|warum)\b",
)
_CAUSES = _any_of(
    r"^\s*why\b",
    r"^\s*(?:warum|weshalb|wieso|weswegen)\b",
    r"\bwhat happens\b.*\b(?:if|when|while|during)\b",
    r"\bwas passiert\b.*\bwenn\b",
)
_RULES: tuple[tuple[re.Pattern[str], Path, str], ...] = (
    (_QUOTED, "naive", "It quotes a phrase, which is looked up word for word."),
    (_COMPARES, "mix", "It compares things."),
    (_RELATES, "mix", "It asks how things are connected."),
    (_OVERVIEWS, "mix", "It asks for an overview."),
    (_CAUSES, "mix", "It asks for reasons or consequences."),
)


def by_rule(question: str, *, has_graph: bool, filtered: bool) -> Route | None:
    """The path that a rule names; None if none does.

    Args:
        question: as the caller asked it.
        has_graph: the knowledge base keeps a graph.
        filtered: the caller filters by metadata, which a graph cannot do soundly.
    """
    if not has_graph:
        return Route("naive", "The knowledge base keeps no graph.")
    if filtered:
        return Route("naive", "Filters apply to passages only.")
    for pattern, mode, why in _RULES:
        if pattern.search(question):
            return Route(mode, why)
    return None


class Router:
    """Routes questions; one a process."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._learned: tuple[list[str], Vectors, Vectors, Vectors] | None = None
        self._learning = asyncio.Lock()

    async def route(self, question: str, *, has_graph: bool, filtered: bool) -> Route:
        """The path for this question; never raises for a missing embedder, which only costs the likeness."""
        ruled = by_rule(question, has_graph=has_graph, filtered=filtered)
        if ruled is not None:
            return ruled
        try:
            texts, wanted, vectors, weights = await self._examples()
            vector = await self._embedder.embed_query(question)
        except ShieldError:
            return Route("naive", "No rule asks for the graph.")
        deep = float(vector @ weights) > 0
        alike = texts[int(np.argmax(np.where((wanted > 0) == deep, vectors @ vector, -1.0)))]
        return Route("mix" if deep else "naive", f"It is like questions that {'span' if deep else 'match'} passages, such as: {alike}")

    async def _examples(self) -> tuple[list[str], Vectors, Vectors, Vectors]:
        """Texts, what is wanted of each (1 deep, -1 fast), their vectors, and the solved weights."""
        async with self._learning:
            if self._learned is None:
                known = tomllib.loads((files("shield.service") / "routing_examples.toml").read_text(encoding="utf-8"))
                texts = [*known["fast"], *known["deep"]]
                wanted = np.array([-1.0] * len(known["fast"]) + [1.0] * len(known["deep"]), dtype=np.float32)
                vectors = await self._embedder.embed(texts)
                gram = vectors.T @ vectors + _RIDGE * np.eye(vectors.shape[1], dtype=np.float32)
                self._learned = texts, wanted, vectors, np.linalg.solve(gram, vectors.T @ wanted).astype(np.float32)
            return self._learned
