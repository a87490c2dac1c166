"""Files by path, from below one directory and nowhere else.

The path is walked part by part from an open directory, each part opened without following links, so neither `..` nor a
link, nor one that is swapped in during the walk, leads out. Only regular files are read, and never past the limit. Whatever
goes wrong, the answer is the same: the caller learns nothing about the rest of the disk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from shield.errors import DocumentRootRefused, DocumentTooLarge

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ANYTHING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_below(root: Path, path: str, limit: int) -> tuple[bytes, str]:
    """Content and name of a file below `root`. Blocks: call it in a thread.

    Args:
        root: the document root; it may be a link itself, its operator chose it.
        path: relative to the root, or absolute and below it.
        limit: most bytes.

    Raises:
        DocumentRootRefused: there is no such regular file below the root, or it cannot be read.
        DocumentTooLarge: it has more than `limit` bytes.
    """
    parts = parts_below(root, path)
    if not parts:
        raise DocumentRootRefused
    try:
        descriptor = open_below(root, parts)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DocumentRootRefused
            # Read on, not to `st_size`: a file may grow, and some say 0.
            content = _read(descriptor, limit + 1) if status.st_size <= limit else None
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise DocumentRootRefused from error
    if content is None or len(content) > limit:
        raise DocumentTooLarge(limit=limit)
    return content, parts[-1]


def parts_below(root: Path, path: str) -> tuple[str, ...]:
    """The names that lead from the root to `path`; none for the root itself.

    Raises:
        DocumentRootRefused: it leads, or could lead, elsewhere.
    """
    asked = PurePosixPath(path)
    if asked.is_absolute():
        for base in (root, Path(os.path.realpath(root))):
            if asked.is_relative_to(base):
                asked = asked.relative_to(base)
                break
        else:
            raise DocumentRootRefused
    if ".." in asked.parts or "\0" in path:
        raise DocumentRootRefused
    return asked.parts


def open_below(root: Path, parts: tuple[str, ...], flags: int = ANYTHING) -> int:
    """A descriptor of what these names lead to, no link followed on the way; `OSError` if it cannot be had."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(parts[-1] if parts else ".", flags, dir_fd=folder)
    finally:
        os.close(folder)


def _read(descriptor: int, most: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < most and (piece := os.read(descriptor, min(1 << 20, most - len(pieces)))):
        pieces += piece
    return bytes(pieces)
