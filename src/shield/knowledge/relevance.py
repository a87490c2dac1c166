"""Words that carry meaning: whether a query can be searched for, and whether a text answers it word by word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from zlib import crc32

from shield.knowledge.bm25 import query_vector, tokenise

_WORD = re.compile(r"\w+(?:[._:@#]\w+)*")
_CODED = re.compile(r"[^\W\d_]\w*\d\w*")  # E4711, sha256: begins with a letter and holds a digit
_JOINED = re.compile(r"\w+(?:[._:@#]\w+)+|\w*[^\W_]_+[^\W_]\w*")  # a.b, max_pages


def content_terms(query: str) -> set[str]:
    """The terms the keyword search looks for: all but stop words, or all if there is nothing else."""
    kept = set(query_vector(query).indices)
    return {term for term in tokenise(query) if crc32(term.encode("utf-8", "surrogatepass")) in kept}


def identifiers(text: str) -> set[str]:
    """Names such as `E4711`, `max_pages` or `client.send`, in lower case."""
    return {
        word.lower()
        for word in _WORD.findall(text)
        if len(word) >= 4 and (_CODED.fullmatch(word) or (_JOINED.fullmatch(word) and not word[0].isdigit()))
    }


def searchable(query: str) -> bool:
    """Whether the query has anything to look for."""
    return any(len(term) > 1 or not term.isascii() for term in tokenise(query))


def lexically_found(query: str, texts: Iterable[str]) -> bool:
    """Whether one of the texts holds an identifier of the query, or every word of it that carries meaning."""
    names, terms = identifiers(query), content_terms(query)
    if not terms:
        return False
    for text in texts:
        own = set(tokenise(text))
        if names & own or terms <= own:
            return True
    return False


def shares_a_word(query: str, texts: Iterable[str]) -> bool:
    """Whether one of the texts holds a word of the query that carries meaning."""
    terms = content_terms(query)
    return any(not terms.isdisjoint(tokenise(text)) for text in texts)
