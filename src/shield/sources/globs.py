"""Globs over the path of a URL: which links of a site a crawl follows.

`*` stands for any characters within a path segment, `**` for any characters at all, everything else for itself; a glob matches
the whole path, upper and lower case told apart. A glob without `?` looks at the path alone, whatever the query; one with `?` at
path and query. Globs are written as addresses are (`/straße/**` is `/stra%C3%9Fe/**`).

All globs of a list run together as one automaton whose states are the bits of one number, so a match takes one pass over the
address whatever the globs are: no backtracking, nothing that a caller or a site could make slow.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from shield.sources.urls import escaped

_TOKENS = re.compile(r"\*+|[^*]")


class Globs:
    """A list of globs; an empty one matches nothing."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        texts = [escaped(pattern) for pattern in patterns]
        self._paths = _Automaton(text for text in texts if "?" not in text)
        self._queries = _Automaton(text for text in texts if "?" in text)
        self._any = bool(texts)

    def __bool__(self) -> bool:
        return self._any

    def __contains__(self, url: str) -> bool:
        """Whether one of the globs matches the canonical `url`."""
        _, _, rest = url.partition("://")
        whole = "/" + rest.partition("/")[2]
        return self._paths.accepts(whole.partition("?")[0]) or self._queries.accepts(whole)


class _Automaton:
    """Bit i is set: what stands before token i of its pattern is read. Shift-And, with stars that stay or step on."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._begin = self._end = self._stars = self._across = self._forever = 0
        self._letters: defaultdict[str, int] = defaultdict(int)
        bit = 1
        for pattern in patterns:
            self._begin |= bit
            for token in _TOKENS.findall(pattern):
                if token[0] == "*":
                    self._stars |= bit
                    self._across |= bit if len(token) > 1 else 0
                else:
                    self._letters[token] |= bit
                bit <<= 1
            if pattern.endswith("**"):
                self._forever |= bit >> 1  # nothing that follows can change the answer
            self._end |= bit
            bit <<= 1

    def accepts(self, text: str) -> bool:
        """Whether a pattern matches the whole text."""
        stars, across, letters = self._stars, self._across, self._letters
        state = self._begin | (self._begin & stars) << 1  # a star may stand for nothing; two never follow each other
        for character in text:
            state = (state & letters.get(character, 0)) << 1 | state & (across if character == "/" else stars)
            state |= (state & stars) << 1
            if not state or state & self._forever:
                return bool(state)
        return bool(state & self._end)
