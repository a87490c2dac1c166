"""The files of a directory below the document root: the same ones in the same order whoever looks, and none from outside.

Every directory is opened part by part from the root without following links (`paths.py`), so nothing leads out, whatever is swapped in during
the walk. Links, names that begin with a dot, and `lost+found` are left out; what cannot be read is named. The walk is bounded: by the files
that match, by ten times as many names that are looked at, and by a depth.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shield.errors import DocumentRootRefused, TooManyFiles
from shield.sources.globs import Globs
from shield.sources.paths import FOLDER, open_below, parts_below
from shield.sources.urls import escaped

MAX_NAME = 2000
"""Longest path of a file below the root, in characters."""
_LOOKED_AT = 10  # names a file that may match
_DEPTH = 64
_SYSTEM = "lost+found"  # of a file system's own, and readable by root only
_LITERAL = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})  # in file names these are letters like any other

Parts = tuple[str, ...]


class Wanted:
    """Which files of a directory are meant, by their path below it."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._include = Globs(map(_anchored, include))
        self._exclude = Globs(map(_anchored, exclude))

    def __call__(self, path: str) -> bool:
        """Whether the file at `path` (`a/b.md`) is."""
        address = f"file:///{escaped(path.translate(_LITERAL))}"
        return address not in self._exclude and (not self._include or address in self._include)


@dataclass
class Listing:
    """What was found; paths are relative to the root, with `/`."""

    files: list[str] = field(default_factory=list)
    """In order."""
    unreadable: list[str] = field(default_factory=list)
    """Directories (with `/` at their end) and files that cannot be read or named."""


def files_below(root: Path, path: str, wanted: Callable[[str], bool], limit: int) -> Listing:
    """The file at `path`, or all files below the directory there that are `wanted`. Blocks: call it in a thread.

    Args:
        root: the document root; it may be a link itself, its operator chose it.
        path: relative to the root, or absolute and below it.
        wanted: asked about each file's path below the directory; a file that is named itself is always wanted.
        limit: most files.

    Raises:
        DocumentRootRefused: there is no such file or directory below the root, or it cannot be read.
        TooManyFiles: there are more, or so many other names that looking on makes no sense.
    """
    start = parts_below(root, path)
    try:
        descriptor = open_below(root, start)
        try:
            mode = os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise DocumentRootRefused from error
    if stat.S_ISREG(mode):
        return Listing(["/".join(start)])
    if not stat.S_ISDIR(mode):
        raise DocumentRootRefused
    walk = _Walk(root, start, wanted, limit)
    walk.run()
    walk.listing.files.sort(key=lambda name: name.split("/"))
    walk.listing.unreadable.sort()
    return walk.listing


class _Walk:
    def __init__(self, root: Path, start: Parts, wanted: Callable[[str], bool], limit: int) -> None:
        self.listing = Listing()
        self._root, self._start, self._wanted, self._limit = root, start, wanted, limit
        self._looked_at = 0

    def run(self) -> None:
        waiting = [self._start]
        while waiting:
            folder = waiting.pop()
            try:
                waiting += self._enter(folder)
            except OSError as error:
                if folder == self._start:
                    raise DocumentRootRefused from error
                self.listing.unreadable.append(_shown(folder) + "/")

    def _enter(self, folder: Parts) -> list[Parts]:
        """Note the files of one directory; returns the directories in it."""
        below: list[Parts] = []
        descriptor = open_below(self._root, folder, FOLDER)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    self._looked_at += 1
                    if self._looked_at > self._limit * _LOOKED_AT:
                        raise TooManyFiles(limit=self._limit)
                    if entry.name.startswith(".") or entry.name == _SYSTEM:
                        continue
                    here = (*folder, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        below.append(here)
                    elif entry.is_file(follow_symlinks=False):
                        self._note(here)
        finally:
            os.close(descriptor)
        if len(folder) - len(self._start) >= _DEPTH:
            self.listing.unreadable += [_shown(each) + "/" for each in below]
            return []
        return below

    def _note(self, file: Parts) -> None:
        name = "/".join(file)
        if name != _shown(file):
            self.listing.unreadable.append(_shown(file))
        elif self._wanted("/".join(file[len(self._start) :])):
            self.listing.files.append(name)
            if len(self.listing.files) > self._limit:
                raise TooManyFiles(limit=self._limit)


def _shown(parts: Parts) -> str:
    """A path as text that can be stored; differs from the path itself if that is no UTF-8 or too long."""
    return os.fsencode("/".join(parts)).decode("utf-8", "replace")[:MAX_NAME]


def _anchored(glob: str) -> str:
    return glob.translate(_LITERAL) if glob.startswith(("/", "**")) else f"**/{glob}".translate(_LITERAL)
