"""The converter: bytes in, blocks out, whatever the bytes are.

Every file and every page is read in a child process of its own, under limits of memory, time and sight (see `host.py`);
what the child answers is checked here before it is believed. Files and pages have a lane each, so a long PDF does not hold
up a crawl; within a lane one conversion runs at a time, and there may be several lanes of each.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Self

from shield.errors import ConversionCrashed, DocumentEmpty, DocumentTooLarge, from_code
from shield.settings import FileSettings
from shield.sources.files.lane import Lanes
from shield.sources.files.limits import Limits
from shield.sources.files.sniff import needs_docling
from shield.sources.files.text import storable
from shield.sources.model import Block, BlockKind, Converted


class Converter:
    """Turns files and pages into documents; close it when done (`async with` does).

    Args:
        settings: limits, times, memory.
        scratch: a directory of our own for temporary files; leftovers of a killed predecessor in it are removed now.
        lanes: files, and pages, that are converted at once.
    """

    def __init__(self, settings: FileSettings, scratch: Path | None = None, *, lanes: int = 1) -> None:
        self._limits = Limits.of(settings)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True, mode=0o700)
        self._files = Lanes(settings, scratch, lanes)
        self._pages = Lanes(settings, scratch, lanes)

    @property
    def recipe(self) -> str:
        """Everything that may change what the same bytes are turned into."""
        from shield.sources.files.child import recipe

        return recipe()

    async def convert(self, content: bytes, filename: str, mime: str | None = None) -> Converted:
        """Convert a file of any kind that is read.

        Args:
            content: the whole file.
            filename: its name, for the type only; may be empty.
            mime: the type its sender declared.

        Raises:
            ShieldError: a `document.*` leaf; it is this document's outcome.
        """
        if not content:
            raise DocumentEmpty
        if len(content) > self._limits.max_bytes:
            raise DocumentTooLarge(limit=self._limits.max_bytes, size=len(content))
        library = "docling" if needs_docling(content, filename, mime) else None
        request = {"operation": "file", "filename": filename, "mime": mime, "limits": self._limits.as_json()}
        return _believe(await self._files.run(library, request, content))

    async def extract_html(self, body: bytes, url: str, charset: str | None = None) -> Converted:
        """Extract a web page: content as blocks, its title, its links in order.

        Args:
            body: the page as it was sent, decompressed.
            url: where it was found in the end; relative links start here.
            charset: the encoding its header declared.

        Raises:
            ShieldError: `page.empty`, `page.needs_browser`, or a `document.*` leaf.
        """
        request = {"operation": "page", "url": url, "charset": charset, "limits": self._limits.as_json()}
        return _believe(await self._pages.run("crawl4ai", request, body))

    async def inspect(self) -> dict[str, Any]:
        """What a child can see of this machine: environment, descriptors, network interfaces, limits."""
        return await self._files.run(None, {"operation": "inspect", "limits": self._limits.as_json()}, b"")

    async def recycle(self) -> None:
        """Stop the processes that are idle, to give their memory back."""
        self._files.recycle()
        self._pages.recycle()

    async def close(self) -> None:
        """Stop all processes; a conversion that runs fails with `document.conversion_crashed`."""
        await self._files.close()
        await self._pages.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _believe(answer: dict[str, Any]) -> Converted:
    """An answer as a document, or the error it names; what has another shape than ours is a crash."""
    try:
        if "error" in answer:
            raise from_code(str(answer["error"]), answer["message"], **answer["details"])
        blocks = tuple(_block(*fields) for fields in answer["blocks"])
        pages = answer["pages"]
        return Converted(
            blocks=blocks,
            title=storable(answer["title"]),
            mime=storable(answer["mime"]),
            pages=None if pages is None else int(pages),
            converter=storable(answer["converter"]),
            links=tuple(storable(link) for link in answer["links"]),
            canonical=storable(answer["canonical"]),
            warnings=tuple(storable(warning) for warning in answer["warnings"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConversionCrashed from error


def _block(kind: str, text: str, level: int, page: int | None) -> Block:
    return Block(BlockKind(kind), storable(text), min(max(int(level), 0), 6), None if page is None else int(page))
