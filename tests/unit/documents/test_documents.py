"""The documents: listed, linked, marked; commands and codes that they name exist."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from markdown_it import MarkdownIt

from shield.cli import database, documents, ingest, jobs, keys, knowledge_bases, query, rollout, serve, smoke, system
from shield.errors import leaf_errors
from tools.docs_run.blocks import MAX_EXCUSED, Where, collect

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted(ROOT.glob("docs/*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *DOCUMENTS,
    *sorted(ROOT.glob("docs/runbooks/*.md")),
    *sorted(ROOT.glob("docs/adr/*.md")),
]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text(path), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path: Path) -> set[str]:
    """What links can lead to within a document: headings as GitHub names them, and explicit ids."""
    tokens = MarkdownIt("commonmark").parse(text(path))
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    slugs = {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text(path)))


def test_the_index_in_the_readme_lists_every_document_once() -> None:
    listed = re.findall(r"^\| \[[^\]]+\]\(docs/([A-Z_]+\.md)\) \|", text(ROOT / "README.md"), re.MULTILINE)
    assert sorted(listed) == [path.name for path in DOCUMENTS]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_within_the_repository_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target) or target.startswith("reports/"):  # `make e2e-full` writes reports
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), target


def test_every_block_of_commands_is_marked_and_few_are_excused() -> None:
    blocks, mistakes = collect(ROOT)
    assert [str(mistake) for mistake in mistakes] == []
    assert sum(block.where is Where.EXCUSED for block in blocks) <= MAX_EXCUSED
    assert sum(block.where is Where.LOCAL for block in blocks) > 40


def test_every_script_is_one_that_bash_can_read() -> None:
    blocks, _ = collect(ROOT)
    for command in (command for block in blocks for command in block.commands):
        read = subprocess.run(["bash", "-n"], input=command.text, capture_output=True, text=True, timeout=10, check=False)
        assert read.returncode == 0, f"{command.text}\n{read.stderr}"


def test_every_file_of_the_repository_that_a_command_names_exists() -> None:
    blocks, _ = collect(ROOT)
    for command in (command for block in blocks for command in block.commands):
        for name in re.findall(r"(?<![\w/.-])((?:charts|docs|examples|images|tools)/[\w./-]+)", command.text):
            assert (ROOT / name).exists(), f"{name} in {command.text}"


def test_troubleshooting_has_causes_and_commands_for_errors_that_exist() -> None:
    page = text(ROOT / "docs/TROUBLESHOOTING.md")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ") and not line.startswith("| symptom")]
    assert len(rows) >= 25
    assert all(len(row) == 3 and all(cell.strip() for cell in row) for row in rows), [row for row in rows if len(row) != 3]
    areas = {code.partition(".")[0] for code in leaf_errors()}
    named = {code for code in re.findall(r"`([a-z]+\.[a-z_]+)`", " ".join(row[0] for row in rows)) if code.partition(".")[0] in areas}
    assert len(named) >= 25
    assert named <= set(leaf_errors()) | {"postgres.does_not_start"}, named - set(leaf_errors())


@cache
def commands() -> dict[str, frozenset[str]]:
    """Every command of the command line with its options, as `jobs list`; a group has none but those of its commands."""
    fresh = typer.Typer()
    for module in (serve, ingest, query, jobs, documents, knowledge_bases, keys, database, smoke, rollout, system):
        module.register(fresh)
    found: dict[str, frozenset[str]] = {}
    pending: list[tuple[str, Any]] = list(cast("Any", typer.main.get_command(fresh)).commands.items())
    while pending:
        name, command = pending.pop()
        pending += [(f"{name} {inner}", one) for inner, one in getattr(command, "commands", {}).items()]
        found[name] = frozenset(option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_shield_command_that_is_named_exists_with_its_options(path: Path) -> None:
    groups = {name.split()[0] for name in commands() if " " in name}
    for line in re.findall(r"(?:`|^ *(?:\$ )?|-- )shield ([a-z][^`\n|#]*)", text(path), re.MULTILINE):
        first, *rest = line.replace("\\", " ").split()
        name = f"{first} {rest[0]}" if first in groups and rest and re.fullmatch("[a-z]+", rest[0]) else first
        assert name in commands(), f"shield {line}"
        options = {re.split(r"[=.,;:)]", word)[0] for word in rest if re.match(r"--[a-z]", word)}
        assert options <= commands()[name] | {"--help"}, f"shield {line}"
