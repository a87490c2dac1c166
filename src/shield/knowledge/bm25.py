"""Keyword search as portable sparse vectors: BM25's term part on our side, IDF on the index's.

A text becomes terms; a term becomes crc32 of its UTF-8 bytes; its weight in a document is BM25's saturated term frequency
(k1 1.2, b 0.75; Robertson and Zaragoza 2009), in a query 1. The index multiplies with the inverse document frequency
(`Modifier.IDF`), so the same query scores the same on Qdrant Edge and on a Qdrant server. The average length is a constant, not
that of the corpus: a point never needs to be computed again when others come or go, and its effect is only how strongly length
counts (our chunks have 0.3 to 1.5 times that length).

Terms are words, lower-cased and NFKC-normalised, with English plurals reduced (Harman's S-stemmer, 1991). Identifiers such as
`E4711`, `foo_bar`, `a.b`, `getValue` count whole and in their parts. Scripts written without spaces become pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from zlib import crc32

from shield.knowledge.vectors.port import SparseVector

K1, B = 1.2, 0.75
AVERAGE_LENGTH = 128.0
"""Terms of a typical chunk of 240 wordpieces; part of the stored vectors, so changing it means a reindex."""

_LONGEST = 64
_WHOLE = re.compile(r"\w+(?:[.\-:@/+#'’]\w+)*(?:\+\+|#)?")  # noqa: RUF001  the typographic apostrophe is meant
_PART = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_STOPWORDS = """
a about after all also an and any are as at be because been before but by can could did do does for from had has have he
her his how i if in into is it its just like me more most my no not of on one only or other our out over she should so
some such than that the their them then there these they this those to under up us was we were what when where which
while who whom whose why will with would you your
"""


def document_vector(text: str) -> SparseVector:
    """What a text is found by; empty for a text without words."""
    terms = list(tokenise(text))
    damping = K1 * (1 - B + B * len(terms) / AVERAGE_LENGTH)
    counts = Counter(_index(term) for term in terms)
    return _vector({index: count * (K1 + 1) / (count + damping) for index, count in counts.items()})


def query_vector(text: str) -> SparseVector:
    """What a question looks for: each term once, stop words only if there is nothing else."""
    terms = set(tokenise(text))
    return _vector({_index(term): 1.0 for term in terms.difference(_STOPWORDS.split()) or terms})


def tokenise(text: str) -> Iterator[str]:
    """The terms of a text, repeated as often as they occur."""
    for match in _WHOLE.finditer(unicodedata.normalize("NFKC", text)):
        whole = match[0]
        if _UNSPACED.search(whole):
            yield from _mixed(whole)
        else:
            yield from _terms(whole)


def _terms(whole: str) -> Iterator[str]:
    """A word, or an identifier whole and in its parts of at least two characters."""
    lowered = whole.lower()
    parts = [part for run in _PART.findall(whole) for part in _CAMEL.split(run)]
    if len(parts) == 1 and parts[0] == whole:
        yield _singular(lowered)
        return
    if len(lowered) <= _LONGEST:
        yield lowered
    for part in parts:
        if len(part) > 1 and part.lower() != lowered:
            yield _singular(part.lower())


def _mixed(whole: str) -> Iterator[str]:
    """Pairs of neighbouring characters for scripts without spaces; what stands between them as usual."""
    at = 0
    for run in _UNSPACED.finditer(whole):
        yield from _spaced(whole[at : run.start()])
        characters = run[0]
        yield from (characters[i : i + 2] for i in range(max(1, len(characters) - 1)))
        at = run.end()
    yield from _spaced(whole[at:])


def _spaced(text: str) -> Iterator[str]:
    for match in _WHOLE.finditer(text):
        yield from _terms(match[0])


def _singular(word: str) -> str:
    """Harman's S-stemmer: ponies -> pony, horses -> horse, pumps -> pump; glass, bus and gas stay."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word


def _index(term: str) -> int:
    return crc32(term.encode("utf-8", "surrogatepass"))


def _vector(weights: dict[int, float]) -> SparseVector:
    indices = tuple(sorted(weights))
    return SparseVector(indices, tuple(weights[index] for index in indices))
