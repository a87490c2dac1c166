"""Quotes: the sentences of the hits that answer a question, word for word.

A sentence is scored by how near it is to the question in meaning (cosine), how much of the question's weight of words it and its heading hold
(a word weighs less the more candidates hold it), and how high its passage ranks. What is quoted is always a slice of the document's
canonical text: `text == document[start:end]`. Nothing is written anew, so nothing can be made up.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shield.knowledge.bm25 import tokenise
from shield.knowledge.model import ChunkRef, Hit
from shield.knowledge.relevance import content_terms
from shield.knowledge.sentences import Sentence, sentences, words

MAX_QUOTES = 4
MAX_LENGTH = 500
_HITS = 8
_CANDIDATES = 32
_MEANING, _WORDS, _RANK = 0.6, 0.3, 0.1
_NEAR_BEST = 0.75
_POINTS_BACK = re.compile(r"(?:it|its|this|that|these|those|they|their|he|she|such|both)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Quote:
    """A verbatim span of a document; offsets are characters of its canonical text."""

    hit: Hit
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Candidate:
    """A sentence that might be quoted."""

    quote: Quote
    terms: frozenset[str]
    words: float
    """Share of the question's weight of words, 0 to 1."""
    rank: float
    """1 for the best passage, falling to 0."""

    @property
    def embedded_text(self) -> str:
        """The sentence with the heading it stands under."""
        heading = self.quote.hit.heading_path[-1:] or (self.quote.hit.title,)
        return f"{heading[0]}: {self.quote.text}" if heading[0] else self.quote.text


def candidates(query: str, hits: Sequence[Hit], spans: Mapping[ChunkRef, str]) -> list[Candidate]:
    """The sentences worth a closer look, best first by words and rank.

    Args:
        query: the question.
        hits: the passages, best first.
        spans: the canonical text behind each passage's offsets.
    """
    asked = content_terms(query)
    found: list[tuple[Quote, frozenset[str], float]] = []
    seen: set[str] = set()
    best = hits[:_HITS]
    for position, hit in enumerate(best):
        for quote in _quotable(hit, spans.get(hit.ref, "")):
            key = " ".join(words(quote.text))
            if key not in seen:
                seen.add(key)
                found.append((quote, frozenset(tokenise(quote.text)) & asked, 1 - position / len(best)))
    holders = Counter(term for _, terms, _ in found for term in terms)
    weight = {term: 1 / (1 + math.log1p(holders[term])) for term in asked}
    total = sum(weight.values()) or 1.0

    def share(quote: Quote, terms: frozenset[str]) -> float:
        above = (frozenset(tokenise(" ".join((quote.hit.title, *quote.hit.heading_path)))) & asked) - terms
        return (sum(weight[term] for term in terms) + 0.5 * sum(weight[term] for term in above)) / total

    scored = [Candidate(quote, terms, share(quote, terms), rank) for quote, terms, rank in found]
    scored.sort(key=lambda each: -(_WORDS * each.words + _RANK * each.rank))
    return scored[:_CANDIDATES]


def choose(query: npt.NDArray[np.float32], found: Sequence[Candidate], vectors: npt.NDArray[np.float32]) -> list[Quote]:
    """Up to four quotes, best first; neighbours become one.

    Args:
        query: the question's unit vector.
        found: the candidates.
        vectors: their unit vectors, one a row.
    """
    if not found:
        return []
    meaning = vectors @ query
    scores = [_MEANING * float(meaning[i]) + _WORDS * each.words + _RANK * each.rank for i, each in enumerate(found)]
    order = sorted(range(len(found)), key=lambda i: (-scores[i], i))
    floor = _NEAR_BEST * scores[order[0]]
    return _joined([found[i].quote for i in order[:MAX_QUOTES] if scores[i] >= floor or i == order[0]])


def quote_for(hit: Hit, span: str, statement: str) -> Quote:
    """The sentence of a passage that shares most words with a statement, or the passage's beginning."""
    stated = set(tokenise(statement))
    found = list(_quotable(hit, span))
    if not found:
        return _quote(hit, span, 0, len(span))
    return max(found, key=lambda quote: (len(stated & set(tokenise(quote.text))), -quote.start))


def _quotable(hit: Hit, span: str) -> list[Quote]:
    """The sentences of a passage but its headings; one that points back takes the sentence before it along."""
    headings = {*hit.heading_path, hit.title}
    found: list[Quote] = []
    before: Sentence | None = None
    for sentence in sentences(span):
        if sentence.text in headings or len(words(sentence.text)) < 3 or set(sentence.text) <= set("|-: "):
            before = None
            continue
        start = sentence.start
        if before is not None and _POINTS_BACK.match(sentence.text) and sentence.end - before.start <= MAX_LENGTH:
            start = before.start
        found.append(_quote(hit, span, start, sentence.end))
        before = sentence
    return found


def _quote(hit: Hit, span: str, start: int, end: int) -> Quote:
    """A slice of the passage, cut at a word if it is too long."""
    if end - start > MAX_LENGTH:
        space = span.rfind(" ", start + 1, start + MAX_LENGTH)
        end = space if space > start else start + MAX_LENGTH
    return Quote(hit, span[start:end], hit.start + start, hit.start + end)


def _joined(quotes: Sequence[Quote]) -> list[Quote]:
    """The quotes without those that lie inside another, in their order."""
    kept: list[Quote] = []
    for quote in quotes:
        place = next((i for i, other in enumerate(kept) if _overlap(quote, other)), None)
        if place is None:
            kept.append(quote)
        elif len(quote.text) > len(kept[place].text) and quote.start <= kept[place].start and quote.end >= kept[place].end:
            kept[place] = quote
    return kept


def _overlap(one: Quote, other: Quote) -> bool:
    return one.hit.ref.document_id == other.hit.ref.document_id and one.start < other.end and other.start < one.end
