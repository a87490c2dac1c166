"""The graph without a language model: entities, relations, merged descriptions and query keywords by rule.

`extract` reads a chunk sentence by sentence. Candidates are runs of content words (the last three of a longer run; a run of
capitalised words ends where lower case begins) and identifiers (`a.b`, `x_y`, `f()`, `camelCase`, `ACRONYM`, `E4711`), each under one canonical name. A candidate's score is the
sum over its words of degree / frequency in the chunk (RAKE, Rose et al. 2010), raised by repetition and for identifiers. Two
candidates that stand within three positions in one sentence are related. A description is a sentence of the chunk, cut to
a short window, because every entity and every relation is embedded: short text is what keeps a graph cheap.

Everything here is a pure function of its arguments. `merge` keeps the first few of all distinct descriptions in one total
order, so merging step by step, in any order, gives what merging all at once gives: the graph does not depend on the order
in which documents came. Cost: about 1 ms a chunk. Limit: languages written without spaces yield few entities.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from shield.knowledge.graph.model import Entity, Extraction, Relation

SEPARATOR = "<SEP>"
"""What LightRAG puts between the descriptions of one entity."""

FRAGMENTS = 2
"""Descriptions kept for an entity or a relation."""

_WINDOW = 140
_REACH = 3
_PHRASE = 3
_LONGEST = 40

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[\u3002\uff01\uff1f])")
_TOKEN = re.compile(r"[^\W_][\w]*(?:[./:\-]\w+)*(?:\(\))?|_\w+(?:\(\))?|[^\w\s]", re.UNICODE)
_CAMEL = re.compile(r"[a-z][A-Z]|[A-Z]{2}")
_STOP = frozenset(
    """a about above after again against all along already also although always am among an and another any are as at away back
    be became because become been before being below best better between both but by came can cannot come could day did different
    do does doing done down during each either else end enough even ever every few find first five following for four from full
    further gave get give given go goes good got great had has have having he her here hers herself high him himself his how however
    i if in into is it its itself just keep know large last later least less let like little long look made make makes many may me
    mean might mine more most much must my myself need needs never new next no nor not nothing now of off often old on once one
    only onto or other others our ours out over own part people per perhaps place put quite rather really right said same say see
    seem seen set several shall she should show since small so some something soon still such take taken than that the their theirs
    them themselves then there therefore these they thing things this those though three through thus time to together too toward
    two under until up upon us use used uses using usually very via want was way we well were what when where whether which while
    who whole whom whose why will with within without work would year yes yet you your yours e.g i.e etc""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class _Mention:
    """A candidate where it stands: its words, its position among the sentence's tokens, its place in the sentence."""

    name: str
    words: tuple[str, ...]
    position: int
    start: int


@dataclass
class _Candidate:
    words: tuple[str, ...]
    count: int = 0
    description: str = ""
    first: int = field(default=0)


def extract(text: str, max_entities: int, max_relations: int) -> Extraction:
    """The most telling entities of a chunk and how they are related; at most the given numbers of each."""
    sentences = [s for s in (" ".join(part.split()) for part in _SENTENCE.split(text)) if s]
    mentions = [_mentions(sentence) for sentence in sentences]
    candidates = _candidates(sentences, mentions)
    scores = _scores(candidates, mentions)
    names = sorted(candidates, key=lambda n: (-scores[n], candidates[n].first, n))[:max_entities]
    chosen = set(names)
    entities = tuple(Entity(name, entity_type(name), candidates[name].description) for name in names)
    return Extraction(entities, _relations(sentences, mentions, chosen, scores)[:max_relations])


def entity_type(name: str) -> str:
    """`identifier` or `concept`: told from the name alone, so that an entity's type never depends on where it was met."""
    return "identifier" if _is_identifier(name) else "concept"


def merge(descriptions: Iterable[str]) -> str:
    """One description of many: the longest `FRAGMENTS` distinct ones, in a fixed order; associative and commutative."""
    parts = {part for text in descriptions for raw in text.split(SEPARATOR) if (part := raw.strip())}
    return SEPARATOR.join(sorted(parts, key=lambda part: (-len(part), part))[:FRAGMENTS])


def keywords(question: str) -> tuple[list[str], list[str]]:
    """(high level, low level) keywords of a question, as LightRAG's queries take them; neither is ever empty."""
    text = " ".join(question.split())
    names = list(dict.fromkeys(m.name for part in _SENTENCE.split(text) for m in _mentions(part)))
    return [text], names[:12] or [text[:60]]


def _mentions(sentence: str) -> list[_Mention]:
    found: list[_Mention] = []
    run: list[tuple[str, int, int]] = []

    def close() -> None:
        if kept := run[-_PHRASE:]:
            words = (*(word.lower() for word, _, _ in kept[:-1]), _singular(kept[-1][0].lower()))
            found.append(_Mention(" ".join(word.capitalize() for word in words), words, kept[0][1], kept[0][2]))
        run.clear()

    for position, match in enumerate(_TOKEN.finditer(sentence)):
        token = match.group()
        if _is_identifier(token):
            close()
            name = token.removesuffix("()")
            found.append(_Mention(name, (name,), position, match.start()))
        elif token.lower() in _STOP or not 2 < len(token) <= _LONGEST or not any(map(str.isalpha, token)):
            close()
        else:
            if run and _changes(run, token):
                close()
            run.append((token, position, match.start()))
    close()
    return found


def _changes(run: list[tuple[str, int, int]], token: str) -> bool:
    """Whether a name begins or ends here: `Alpha Gateway | forwards`; a sentence's own capital says nothing."""
    opening = len(run) == 1 and run[0][1] == 0
    return not opening and run[-1][0][0].isupper() != token[0].isupper()


def _is_identifier(token: str) -> bool:
    if not 1 < len(token) <= 2 * _LONGEST or " " in token or not any(map(str.isalpha, token)):
        return False
    if token.lower() in _STOP:
        return False
    inner = token.strip("_")
    joined = "_" in inner or "." in inner or "/" in inner or ":" in inner or token.endswith("()")
    return joined or bool(_CAMEL.search(token)) or any(map(str.isdigit, token))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _candidates(sentences: list[str], mentions: list[list[_Mention]]) -> dict[str, _Candidate]:
    found: dict[str, _Candidate] = {}
    order = 0
    for sentence, group in zip(sentences, mentions, strict=True):
        for mention in group:
            order += 1
            candidate = found.setdefault(mention.name, _Candidate(mention.words, first=order))
            candidate.count += 1
            shown = _window(sentence, mention.start)
            if len(shown) > len(candidate.description):
                candidate.description = shown
    return found


def _scores(candidates: dict[str, _Candidate], mentions: list[list[_Mention]]) -> dict[str, float]:
    frequency: Counter[str] = Counter()
    degree: Counter[str] = Counter()
    for group in mentions:
        for mention in group:
            for word in mention.words:
                frequency[word] += 1
                degree[word] += len(mention.words)
    scores = {}
    for name, candidate in candidates.items():
        base = sum(degree[word] / frequency[word] for word in candidate.words)
        score = base * (1 + 0.6 * (candidate.count - 1))
        if _is_identifier(name):
            score += 1.5
        elif len(candidate.words) == 1:
            score *= 0.7
        scores[name] = score
    return scores


def _relations(sentences: list[str], mentions: list[list[_Mention]], chosen: set[str], scores: dict[str, float]) -> tuple[Relation, ...]:
    count: Counter[tuple[str, str]] = Counter()
    shown: dict[tuple[str, str], str] = defaultdict(str)
    for sentence, group in zip(sentences, mentions, strict=True):
        kept = [m for m in group if m.name in chosen]
        for index, left in enumerate(kept):
            for right in kept[index + 1 : index + 1 + _REACH]:
                if left.name == right.name:
                    continue
                pair = (left.name, right.name) if left.name < right.name else (right.name, left.name)
                count[pair] += 1
                text = _window(sentence, left.start)
                if len(text) > len(shown[pair]):
                    shown[pair] = text
    weight = {pair: n * math.sqrt(scores[pair[0]] * scores[pair[1]]) for pair, n in count.items()}
    ranked = sorted(count, key=lambda pair: (-weight[pair], pair))
    return tuple(Relation(a, b, f"{a}, {b}", shown[a, b]) for a, b in ranked)


def _window(sentence: str, start: int) -> str:
    """The sentence, or the part of it around `start` that fits, cut between words."""
    if len(sentence) <= _WINDOW:
        return sentence
    left = max(0, min(start - _WINDOW // 3, len(sentence) - _WINDOW))
    part = sentence[left : left + _WINDOW]
    if left:
        part = part.partition(" ")[2] or part
    if left + _WINDOW < len(sentence):
        part = part.rpartition(" ")[0] or part
    return part
