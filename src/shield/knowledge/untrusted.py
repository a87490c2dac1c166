r"""What a page or a document may not carry into an agent's context.

Whoever writes a page writes into the context of every agent that reads it. Before a text is stored it loses what a person
never sees but a model reads (Unicode tag characters, bidirectional controls, zero-width characters, runs of variation
selectors, control characters, HTML comments) and what a client would load by itself (remote images). Zero-width joiners
stay inside scripts and emoji that need them. Code keeps its visible comments.

What merely *looks* like instructions to a model stays, since a page may well write about prompt injection, but its
chunk is flagged `suspected_injection`. The list of patterns is short and made to stay silent on ordinary documentation; it is a hint to
the reader, not a defence. All of it runs in linear time on hostile input, and cleaning twice changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from shield.sources.model import Block, BlockKind, Converted

CLEANER = "shield-cleaner-1"
"""Version of these rules; part of the content hash."""

SUSPECTED_INJECTION = "suspected_injection"
HIDDEN_TEXT = "hidden_text_removed"

_TAGS = re.compile("[\U000e0000-\U000e007f]")
# Characters without a glyph: controls but tab and line feed, soft hyphen, zero-width, bidirectional controls, invisible
# operators, fillers, interlinear annotation, tags and the supplementary variation selectors.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_JOINER = re.compile("[\u200c\u200d]+")
_SELECTORS = re.compile("([\ufe00-\ufe0f])[\ufe00-\ufe0f]+")
_BRACKETS = re.compile(r"[\[\]]")
_REMOTE = re.compile(r"\(\s{0,8}<?(?:[a-z][a-z0-9+.-]{0,15}:|//)", re.IGNORECASE)
_IMG = re.compile(r"<(?:img|image|picture|source|iframe|object|embed|video|audio)\b", re.IGNORECASE)
_REACH = 2_100  # how far a destination or a tag may go: a URL's limit and some attributes
_PASSES = 8

_INJECTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        (
            r"\b(?:ignore|disregard|forget) (?:(?:all|any|every|of|the|your|my|these|those|other|existing) ){0,4}"
            r"(?:previous|prior|earlier|preceding|foregoing|system|safety|original|initial) (?:\w+ ){0,2}?(?:instructions?|prompts?|directives?|guidelines|rules)\b"
        ),
        (
            r"\b(?:ignore|disregard|forget) (?:all|any|every|everything)(?: of)?(?: (?:the|your|my|these|those))?"
            r"(?: (?:instructions?|prompts?|directives|above instructions?)\b| (?:above|before this|you (?:were|have been) told))"
        ),
        r"\bdo not (?:follow|obey) (?:the|your|any|all)(?: \w+)? (?:previous|prior|above|earlier|system|original) (?:instructions?|prompts?|rules)\b",
        r"\b(?:ignoriere|vergiss|missachte) (?:alle|s\u00e4mtliche|deine|die)(?: \w+){0,2} (?:anweisungen|instruktionen|vorgaben)\b",
        r"\bignora(?:d|r)? (?:todas )?(?:las|tus) instrucciones\b|\bignore[zr]? (?:toutes )?(?:les|vos|tes) instructions\b",
        r"\byou are now (?:dan\b|an? (?:unrestricted|unfiltered|uncensored|jailbroken|evil|different) |in (?:developer|debug|god|jailbreak|dan) mode)",
        (
            r"\b(?:reveal|print|show|repeat|output|leak|disclose|tell me) (?:me |us )?your (?:(?:system|hidden|initial|original|secret|full|entire) )+"
            r"(?:prompt|instructions?|message)\b"
        ),
        r"\b(?:new|updated|real|actual) (?:system )?instructions? (?:for|to) (?:the |you,? ?(?:the )?|all )?(?:ai|assistants?|language model|llm|chatbot|agents?)\b",
        (
            r"\b(?:if|when|as) (?:you are|you're) (?:an? |the )?(?:ai|llm|language model|(?:ai )?assistant|chatbot)\b[^.\n]{0,80}\b(?:must|should|please|"
            r"ignore|instead|reply|respond|say|send|include|recommend)\b"
        ),
        (
            r"\b(?:attention|note|message|instructions?|dear)[\s\W]{1,4}(?:to |for )?(?:all |any |the )?(?:ai|llm|language models?|ai assistants?|ai agents?|chatbots?)\b"
            r"[^.\n]{0,40}[:,][^.\n]{0,120}\b(?:must|should|please|ignore|instead|send|include|recommend|call|fetch)\b"
        ),
        (
            r"\b(?:send|post|upload|exfiltrate|forward|e-?mail|transmit)\b[^.\n]{0,40}\b(?:this conversation|the conversation|chat history|conversation history|"
            r"your (?:system prompt|api keys?|credentials|context|memory|secrets))\b"
        ),
        r"\bdo not (?:tell|inform|alert|mention (?:this|it) to) the user (?:about|of) (?:this|these|that you)\b",
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>|\[/?inst\]|<</?sys>>",
        r"</?(?:system|system-reminder|system_prompt|function_calls|tool_call|tool_use|tool_result)\s{0,4}>",
        r"\b(?:begin|end|start) (?:of )?(?:system|admin(?:istrator)?|developer) (?:prompt|message|override|instructions?)\b",
        r"\bsystem (?:override|prompt override|instruction override)\b",
    )
)


def clean(text: str, *, code: bool = False) -> str:
    """The text without what only a model would read or a client would load; `code` keeps comments and markup."""
    text = visible(text)
    if code:
        return text
    for _ in range(_PASSES):  # removing one thing may put the halves of another together
        cleaned = visible(_without_images(_without_tags(_without_comments(text))))
        if cleaned == text:
            return text
        text = cleaned
    return _IMG.sub(lambda match: f"< {match[0][1:]}", text.replace("<!--", "<! --").replace("![", "! ["))


def visible(text: str) -> str:
    """The text without characters that have no glyph; fit for PostgreSQL and UTF-8."""
    text = _SURROGATES.sub("\ufffd", _LINE_ENDS.sub("\n", text))
    text = _INVISIBLE.sub("", text)
    text = _SELECTORS.sub(r"\1", text)
    return _JOINER.sub(_joiner_where_needed, text) if "\u200c" in text or "\u200d" in text else text


def clean_line(text: str, limit: int) -> str:
    """A title or a heading: one visible line of at most `limit` characters."""
    return " ".join(clean(text).split())[:limit].strip()


def clean_document(converted: Converted) -> tuple[Converted, tuple[str, ...]]:
    """The document with every block cleaned, blocks left empty dropped, and its flags.

    `hidden_text_removed` says that it held Unicode tag characters, which have no honest use in prose.
    """
    blocks = tuple(
        replace(block, text=text) for block in converted.blocks if (text := clean(block.text, code=block.kind is BlockKind.CODE).strip())
    )
    flags = (HIDDEN_TEXT,) if any(_hides(block) for block in converted.blocks) else ()
    return replace(converted, blocks=blocks, title=clean_line(converted.title, 500)), flags


def suspicious(text: str) -> bool:
    """Whether the text speaks to a model rather than to a reader."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    return any(pattern.search(plain) for pattern in _INJECTIONS)


def _hides(block: Block) -> bool:
    return len(_TAGS.findall(block.text)) > 8  # more than the tag sequence of a flag


def _joiner_where_needed(match: re.Match[str]) -> str:
    """Keep one joiner between two letters of a script that joins, or inside an emoji."""
    text, before, after = match.string, match.start() - 1, match.end()
    if before < 0 or after >= len(text):
        return ""
    return match[0][0] if _joins(text[before]) and _joins(text[after]) else ""


def _joins(character: str) -> bool:
    code = ord(character)
    return (
        0x0600 <= code <= 0x1FFF
        or 0x2600 <= code <= 0x27BF
        or 0xFE00 <= code <= 0xFE0F
        or 0xA800 <= code <= 0xABFF
        or 0x1F000 <= code <= 0x1FAFF
    )


def _without_comments(text: str) -> str:
    if "<!--" not in text:
        return text
    kept, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[position:start])
        position = end + 3
    return "".join(kept) + text[position:]


def _without_tags(text: str) -> str:
    """Drop HTML tags that load something."""
    kept, position = [], 0
    while match := _IMG.search(text, position):
        end = text.find(">", match.end(), match.end() + _REACH)
        kept.append(text[position : match.start()])
        position = end + 1 if end >= 0 else match.end()
    return "".join(kept) + text[position:]


def _without_images(text: str) -> str:
    """`![alt](https://...)` and `![alt][ref]` become `alt`; brackets are matched in one pass."""
    if "![" not in text:
        return text
    closing: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACKETS.finditer(text):
        if match[0] == "[":
            opened.append(match.start())
        elif opened:
            closing[opened.pop()] = match.start()
    drop: list[tuple[int, int]] = []
    for start, end in closing.items():
        if start == 0 or text[start - 1] != "!":
            continue
        after = end + 1
        if text.startswith("[", after) and after in closing and closing[after] - after < _REACH:
            drop += [(start - 1, start + 1), (end, closing[after] + 1)]
        elif _REMOTE.match(text, after):
            stop = text.find(")", after, after + _REACH)
            drop += [(start - 1, start + 1), (end, stop + 1 if stop >= 0 else min(len(text), after + _REACH))]
    kept, position = [], 0
    for start, end in sorted(drop):
        if start > position:
            kept.append(text[position:start])
        position = max(position, end)
    return "".join(kept) + text[position:]
