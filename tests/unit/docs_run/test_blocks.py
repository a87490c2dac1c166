"""Which blocks are found, and what is wrong with those that cannot be run."""

from __future__ import annotations

from pathlib import Path

from tools.docs_run.__main__ import chains
from tools.docs_run.blocks import MAX_EXCUSED, Block, Where, collect, read, shows

PAGE = Path("docs/PAGE.md")


def blocks_of(text: str) -> list[Block]:
    blocks, mistakes = read(PAGE, text)
    assert mistakes == []
    return blocks


def mistakes_of(text: str) -> list[str]:
    return [str(mistake) for mistake in read(PAGE, text)[1]]


def test_a_console_block_is_commands_and_what_they_print() -> None:
    (block,) = blocks_of("text\n\n<!-- run: local -->\n```console\n$ one \\\n    --long\n$ two\nprinted\n\n$ three\n```\n")
    assert [(c.line, c.text, c.output) for c in block.commands] == [
        (5, "one \\\n    --long", ()),
        (7, "two", ("printed",)),
        (10, "three", ()),
    ]


def test_a_script_is_one_command_of_all_its_lines() -> None:
    (block,) = blocks_of("<!-- run: cluster -->\n```sh\none\ntwo\n```\n")
    assert [(c.line, c.text, c.script) for c in block.commands] == [(3, "one\ntwo", True)]
    assert block.where is Where.CLUSTER


def test_a_block_within_a_list_is_found() -> None:
    (block,) = blocks_of("1. Do this:\n   <!-- run: local -->\n   ```sh\n   one\n   ```\n")
    assert block.commands[0].text == "one"


def test_a_mark_says_how_long_how_it_ends_and_when_it_serves() -> None:
    first, second, third = blocks_of(
        "<!-- run: local, until Ready at -->\n```sh\nserve\n```\n<!-- run: continue, exit 22 -->\n```sh\nask\n```\n"
        "<!-- run: local, timeout 600 -->\n```sh\nlong\n```\n"
    )
    assert (first.until, first.continues) == ("Ready at", False)
    assert (second.exit, second.continues, second.where) == (22, True, Where.LOCAL)
    assert third.timeout == 600


def test_languages_that_are_no_commands_need_no_mark() -> None:
    assert blocks_of("```yaml\na: 1\n```\n```text\nx\n```\n") == []


def test_a_block_without_a_language_hides_no_command() -> None:
    assert "a block without a language" in mistakes_of("```\nmake something\n```\n")[0]


def test_an_unmarked_block_is_a_mistake_with_its_line() -> None:
    (mistake,) = mistakes_of("text\n\n```console\n$ one\n```\n")
    assert mistake.startswith("docs/PAGE.md:3: a block without mark")


def test_a_mark_counts_for_the_next_block_only() -> None:
    assert len(mistakes_of("<!-- run: local -->\n```sh\none\n```\n```sh\ntwo\n```\n")) == 1
    assert len(mistakes_of("<!-- run: local -->\n\ntext between\n\n```sh\none\n```\n")) == 1


def test_a_mark_before_a_block_that_is_no_command_is_a_mistake() -> None:
    assert "a mark before a block of yaml" in mistakes_of("<!-- run: local -->\n```yaml\na: 1\n```\n")[0]


def test_marks_that_say_nothing_known_are_mistakes() -> None:
    for mark in ("run: somewhere", "run: local, quickly", "run: local, exit soon", "run: continue", "excused:", "run: local, until"):
        assert len(mistakes_of(f"<!-- {mark} -->\n```sh\none\n```\n")) == 1, mark


def test_a_console_block_without_commands_is_a_mistake() -> None:
    assert "no command" in mistakes_of("<!-- run: local -->\n```console\njust output\n```\n")[0]


def test_what_goes_on_needs_a_shell_to_go_on_in() -> None:
    excused = "<!-- excused: why -->\n```sh\none\n```\n"
    more = "<!-- run: continue -->\n```sh\ntwo\n```\n"
    assert "nothing to continue" in mistakes_of(excused + more)[0]
    assert [block.continues for block in blocks_of("<!-- run: cluster -->\n```sh\none\n```\n" + excused + more)] == [False, False, True]


def test_ten_blocks_may_be_excused_and_the_eleventh_may_not(tmp_path: Path) -> None:
    excused = "<!-- excused: needs the moon -->\n```sh\none\n```\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/A.md").write_text(excused * (MAX_EXCUSED - 1))
    (tmp_path / "README.md").write_text(excused)
    blocks, mistakes = collect(tmp_path)
    assert (len(blocks), mistakes) == (MAX_EXCUSED, [])
    (tmp_path / "docs/B.md").write_text(excused)
    assert [str(mistake) for mistake in collect(tmp_path)[1]] == ["docs/B.md:2: excuse number 11: at most 10 blocks may be excused"]


def test_blocks_that_go_on_share_a_shell_with_those_before() -> None:
    text = "".join(f"<!-- run: {mark} -->\n```sh\n{mark}\n```\n" for mark in ("local", "continue", "cluster", "continue", "local"))
    assert [len(chain) for chain in chains(blocks_of(text))] == [2, 2, 1]


def test_output_is_compared_line_by_line_in_order_with_any_numbers() -> None:
    printed = "Saved 17 rows of 39 tables\nmore\nall  done in 0.25 s\n"
    assert shows(printed, ("Saved 812 rows of 4 tables", "all done in 1.5 s")) is None
    assert shows(printed, ("Saved ... tables", "...", "all done")) is None
    assert shows(printed, ("all done", "Saved ...")) == "Saved ..."
    assert shows(printed, ("Saved many rows",)) == "Saved many rows"


def test_a_line_that_is_a_number_means_that_number() -> None:
    assert shows("401\n", ("401",)) is None
    assert shows("200\n", ("401",)) == "401"
