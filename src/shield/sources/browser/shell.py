"""The empty-shell rule: does this HTML show its text only after its scripts have run?

Judged by the bytes alone, before anything parses them, in time linear to their length. A page without scripts is never a
shell. One with scripts is if it shows next to no words, or few words (a menu, a footer) and an empty element of the kind
that applications mount in, or very few words and a notice to switch JavaScript on. A short page that says something is left
alone: what decides is that the place of the content is empty.
"""

from __future__ import annotations

import re

FEW, SOME, MANY = 8, 30, 120
"""Visible words below which scripts alone, a notice, or an empty mount make a page a shell."""

_SCRIPT = re.compile(rb"<script\b", re.IGNORECASE)
_UNSEEN = re.compile(rb"<!--.*?(?:-->|\Z)|<(script|style|template|noscript|title|textarea)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(rb"<[^>]*(?:>|\Z)")
_WORD = re.compile(rb"[a-z0-9]{2,}|[\x80-\xff]{3}", re.IGNORECASE)  # above ASCII three bytes: scripts without spaces count too
_EMPTY = re.compile(rb"<([a-z][a-z0-9-]{0,40})\b([^<>]{0,500})>\s{0,200}</\1\s{0,20}>", re.IGNORECASE)
_MOUNT = re.compile(
    rb"\bid\s{0,5}=\s{0,5}[\"']?(?:root|app|main-app|app-root|react-root|application|__next|__nuxt|___gatsby|svelte|q-app|ember-app)[\"'\s]"
    rb"|\b(?:data-reactroot|data-server-rendered|ng-version|ng-app|v-cloak)\b",
    re.IGNORECASE,
)
_NOTICE = re.compile(rb"<noscript\b[^>]{0,500}>.{0,600}?javascript", re.IGNORECASE | re.DOTALL)


def needs_browser(html: bytes) -> bool:
    """Whether only a browser will find this page's text."""
    if not _SCRIPT.search(html):
        return False
    seen = _UNSEEN.sub(b" ", html)
    words = _words(_TAG.sub(b" ", seen))
    if words < FEW:
        return True
    return (words < MANY and _has_empty_mount(seen)) or (words < SOME and _NOTICE.search(html) is not None)


def shows_nothing(html: bytes) -> bool:
    """Whether next to no words are visible, scripts or not."""
    return _words(_TAG.sub(b" ", _UNSEEN.sub(b" ", html))) < FEW


def _words(text: bytes) -> int:
    count = 0
    for _ in _WORD.finditer(text):
        count += 1
        if count >= MANY:
            break
    return count


def _has_empty_mount(seen: bytes) -> bool:
    """An empty element with the name of an application's place, or of an application itself (`<my-app></my-app>`)."""
    return any(b"-" in match[1] or _MOUNT.search(match[2] + b" ") for match in _EMPTY.finditer(seen))
