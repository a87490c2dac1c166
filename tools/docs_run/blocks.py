"""Which blocks the documents hold, what their marks say, and which commands they are.

Pure: text in, blocks out. A mark or block that cannot be read is a `Mistake` with document and line, and all of them are found in one go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from markdown_it import MarkdownIt

LANGUAGES = frozenset({"console", "sh", "bash", "shell"})
MAX_EXCUSED = 10
TIMEOUT = 120.0
"""Seconds that a command may take if its mark says nothing else."""

_MARK = re.compile(r"<!--\s*(run|excused):\s*(.*?)\s*-->\s*", re.DOTALL)


class Where(StrEnum):
    """Where a block is run."""

    LOCAL = "local"
    CLUSTER = "cluster"
    EXCUSED = "excused"


@dataclass(frozen=True)
class Command:
    """One command, or a whole script: its line in the document, its text, and the lines that it should print."""

    line: int
    text: str
    output: tuple[str, ...] = ()
    script: bool = False


@dataclass(frozen=True)
class Block:
    """A marked block."""

    document: Path
    line: int
    where: Where
    commands: tuple[Command, ...] = ()
    continues: bool = False
    timeout: float = TIMEOUT
    exit: int = 0
    until: str = ""
    reason: str = ""


class Mistake(Exception):
    """A document that cannot be run as it is."""

    def __init__(self, document: Path, line: int, what: str) -> None:
        """Name the place."""
        super().__init__(f"{document}:{line}: {what}")


def documents(root: Path) -> list[Path]:
    """The documents whose blocks are run, in the order in which a reader meets them."""
    return [root / "README.md", *sorted(root.glob("docs/*.md")), *sorted(root.glob("charts/*/README.md"))]


def collect(root: Path) -> tuple[list[Block], list[Mistake]]:
    """All blocks of all documents, and everything that is wrong with them."""
    blocks: list[Block] = []
    mistakes: list[Mistake] = []
    for document in documents(root):
        found, wrong = read(document.relative_to(root), document.read_text(encoding="utf-8"))
        blocks += found
        mistakes += wrong
    excused = [block for block in blocks if block.where is Where.EXCUSED]
    mistakes += [
        Mistake(block.document, block.line, f"excuse number {number}: at most {MAX_EXCUSED} blocks may be excused")
        for number, block in enumerate(excused, start=1)
        if number > MAX_EXCUSED
    ]
    return blocks, mistakes


def read(document: Path, text: str) -> tuple[list[Block], list[Mistake]]:
    """The blocks of one document, and its mistakes."""
    blocks: list[Block] = []
    mistakes: list[Mistake] = []
    comment = ""
    for token in MarkdownIt("commonmark").parse(text):
        language = (token.info.split() or [""])[0]
        line = (token.map or [0])[0] + 1
        try:
            if token.type == "fence" and language in LANGUAGES:
                commands = (
                    tuple(_console(token.content, line + 1))
                    if language == "console"
                    else (Command(line + 1, token.content.rstrip(), script=True),)
                )
                blocks.append(_block(Block(document, line, Where.LOCAL, commands), comment, blocks))
            elif token.type == "fence" and not token.info.strip():
                mistakes.append(Mistake(document, line, "a block without a language: `text`, if it is none"))
            elif token.type == "fence" and _MARK.search(comment):
                mistakes.append(Mistake(document, line, f"a mark before a block of {language}"))
        except Mistake as mistake:
            mistakes.append(mistake)
        comment = token.content if token.type == "html_block" else ""
    return blocks, mistakes


def _block(block: Block, comment: str, before: list[Block]) -> Block:
    """The block with what its mark says."""
    found = _MARK.fullmatch(comment.strip())
    if found is None:
        raise Mistake(
            block.document,
            block.line,
            "a block without mark: put `<!-- run: local -->` or another one before it (tools/docs_run/__init__.py)",
        )
    if found[1] == "excused":
        if not found[2]:
            raise Mistake(block.document, block.line, "an excuse needs a reason")
        return replace(block, where=Where.EXCUSED, reason=found[2])
    where, *options = [part.strip() for part in found[2].split(",")]
    said = dict(_option(block, option) for option in options)
    continues = where == "continue"
    if continues:
        shells = [other.where for other in before if other.where is not Where.EXCUSED]
        if not shells:
            raise Mistake(block.document, block.line, "nothing to continue: no block before it in this document is run")
        where = shells[-1]
    if where not in {Where.LOCAL, Where.CLUSTER}:
        raise Mistake(block.document, block.line, f"`{where}` is no place to run: local, cluster or continue")
    if not block.commands:
        raise Mistake(block.document, block.line, "no command: lines of a console block that begin with `$ ` are commands")
    timeout, code, until = float(said.get("timeout", TIMEOUT)), int(said.get("exit", 0)), said.get("until", "")
    return replace(block, where=Where(where), continues=continues, timeout=timeout, exit=code, until=until)


def _option(block: Block, option: str) -> tuple[str, str]:
    name, _, value = option.partition(" ")
    if name not in {"timeout", "exit", "until"} or not value or (name != "until" and not value.isdecimal()):
        raise Mistake(block.document, block.line, f"`{option}` is no option: timeout SECONDS, exit CODE or until TEXT")
    return name, value.strip()


def _console(content: str, line: int) -> Iterator[Command]:
    """`$ ` begins a command, a backslash at its end continues it; other lines are output."""
    lines = content.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith("$ "):
            at += 1  # output before any command: nothing printed it
            continue
        start = at
        text = [lines[at][2:]]
        while text[-1].endswith("\\") and at + 1 < len(lines):
            at += 1
            text.append(lines[at])
        at += 1
        output = []
        while at < len(lines) and not lines[at].startswith("$ "):
            output.append(lines[at])
            at += 1
        yield Command(line + start, "\n".join(text), tuple(entry for entry in output if entry.strip()))


def shows(output: str, expected: tuple[str, ...]) -> str | None:
    """The first expected line that the output does not show in its turn, or None."""
    printed = iter(output.splitlines())
    for line in expected:
        if line.strip() == "...":
            continue
        pattern = _pattern(line)
        if not any(pattern.search(" ".join(text.split())) for text in printed):
            return line
    return None


def _pattern(line: str) -> re.Pattern[str]:
    parts = [re.escape(" ".join(part.split())) for part in line.split("...")]
    exact = line.strip().isdecimal()  # such as the status of a call
    return re.compile(f"^{line.strip()}$" if exact else re.sub(r"\d+", r"\\d+", ".*".join(parts)))
