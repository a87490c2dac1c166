"""Commands are run in one bash: what they leave stays, what fails is told, what they start ends with it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.docs_run.blocks import Block, read
from tools.docs_run.shell import Failed, Shell


def block(text: str, mark: str = "run: local", language: str = "console") -> Block:
    blocks, mistakes = read(Path("docs/PAGE.md"), f"<!-- {mark} -->\n```{language}\n{text}\n```\n")
    assert mistakes == []
    return blocks[0]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path, os.environ, tmp_path / "scratch") as shell:
        yield shell


def test_what_one_command_leaves_the_next_one_finds(shell: Shell) -> None:
    shell.run(block("$ mkdir here && cd here && export NAME=value"))
    shell.run(block('$ echo "$NAME in ${PWD##*/}"\nvalue in here'))


def test_a_failing_command_is_told_with_document_line_code_and_output(shell: Shell) -> None:
    with pytest.raises(Failed) as failed:
        shell.run(block("$ true\n$ echo words; exit_code() { return 7; }; exit_code"))
    assert str(failed.value) == "docs/PAGE.md:4: exit code 7, expected 0\n  $ echo words; exit_code() { return 7; }; exit_code\n    words"


def test_a_script_ends_at_its_first_failure_and_names_its_line(shell: Shell) -> None:
    with pytest.raises(Failed, match=r"docs/PAGE\.md:3: exit code 1, expected 0") as failed:
        shell.run(block("echo one\nfalse\necho two", language="sh"))
    assert "line 4 ended with 1" in str(failed.value)
    assert "    two" not in str(failed.value)
    shell.run(block("$ false; true"))


def test_a_command_may_have_to_fail(shell: Shell) -> None:
    shell.run(block("$ (exit 22)", "run: local, exit 22"))
    with pytest.raises(Failed, match="exit code 0, expected 22"):
        shell.run(block("$ true", "run: local, exit 22"))


def test_a_command_that_ends_the_shell_is_told_by_its_code(shell: Shell) -> None:
    with pytest.raises(Failed, match="exit code 3, expected 0"):
        shell.run(block("$ exit 3"))


def test_wrong_output_is_told(shell: Shell) -> None:
    with pytest.raises(Failed, match="the document says that it prints `world`"):
        shell.run(block("$ echo hello\nworld"))


def test_a_command_that_never_ends_is_given_up(shell: Shell) -> None:
    with pytest.raises(Failed, match="not ended after 1 s"):
        shell.run(block("$ sleep 50", "run: local, timeout 1"))


def test_a_server_stays_for_the_next_block_and_ends_with_the_shell(tmp_path: Path) -> None:
    with Shell(tmp_path, os.environ, tmp_path / "scratch") as shell:
        shell.run(block("$ echo $BASHPID > pid; echo Ready; exec sleep 50", "run: local, until Ready"))
        shell.run(block("$ kill -0 $(cat pid)"))
        pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel, or whoever adopted it, takes it away
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_ends_before_it_is_ready_is_told(shell: Shell) -> None:
    with pytest.raises(Failed, match="ended before it showed `Ready`"):
        shell.run(block("$ echo broken; false", "run: local, until Ready"))


def test_a_server_that_is_never_ready_is_given_up(shell: Shell) -> None:
    with pytest.raises(Failed, match="did not show `Ready` within 1 s"):
        shell.run(block("$ sleep 50", "run: local, until Ready, timeout 1"))
