"""The files of a directory: which ones, in which order, and none from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shield.errors import DocumentRootRefused, TooManyFiles
from shield.sources import folders
from shield.sources.folders import Wanted, files_below
from shield.sources.paths import read_below


def everything(_path: str) -> bool:
    return True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    below = tmp_path / "root"
    for name in ("docs/b.md", "docs/a.md", "docs/sub/deep/c.txt", "docs/a/z.md", "other.md", "docs/.git/config", "docs/.hidden.md"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).write_text(name)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("outside")
    return below


def test_all_files_come_in_one_order_and_hidden_ones_do_not(root: Path) -> None:
    listing = files_below(root, "docs", everything, 100)
    assert listing.files == ["docs/a/z.md", "docs/a.md", "docs/b.md", "docs/sub/deep/c.txt"]
    assert listing.unreadable == []
    assert all(read_below(root, name, 100)[0] == name.encode() for name in listing.files)


@pytest.mark.parametrize("path", [".", "./", "docs/..//"])
def test_the_root_itself_may_be_named_and_nothing_above_it(root: Path, path: str) -> None:
    if ".." in path:
        with pytest.raises(DocumentRootRefused):
            files_below(root, path, everything, 100)
    else:
        assert len(files_below(root, path, everything, 100).files) == 5
        assert files_below(root, str(root), everything, 100).files == files_below(root, path, everything, 100).files


def test_a_file_that_is_named_is_that_file_whatever_is_wanted(root: Path) -> None:
    assert files_below(root, "docs/a.md", lambda _: False, 1).files == ["docs/a.md"]


@pytest.mark.parametrize("path", ["nowhere", "../outside", "/etc", "docs/a.md/x", "a\0b", "link", "link/secret.md", "pipe"])
def test_what_is_not_below_the_root_is_refused(root: Path, path: str) -> None:
    (root / "link").symlink_to(root.parent / "outside")
    os.mkfifo(root / "pipe")
    with pytest.raises(DocumentRootRefused):
        files_below(root, path, everything, 100)


def test_links_lead_nowhere_and_are_no_files(root: Path) -> None:
    (root / "docs" / "out").symlink_to(root.parent / "outside")
    (root / "docs" / "leak.md").symlink_to(root.parent / "outside" / "secret.md")
    (root / "docs" / "round").symlink_to(root / "docs")
    os.mkfifo(root / "docs" / "pipe.md")
    assert files_below(root, "docs", everything, 100) == files_below(root, "docs", everything, 4)


def test_a_directory_that_becomes_a_link_while_it_is_walked_is_not_followed(root: Path) -> None:
    def swap(path: str) -> bool:
        sub = root / "docs" / "sub"
        if path.count("/") == 0 and not sub.is_symlink():
            sub.rename(root / "moved")
            sub.symlink_to(root.parent / "outside")
        return True

    listing = files_below(root, "docs", swap, 100)
    assert not any("secret" in name for name in listing.files)
    assert listing.unreadable == ["docs/sub/"]


def test_what_cannot_be_named_or_reached_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "docs" / os.fsdecode(b"caf\xe9.md")).write_text("latin")
    monkeypatch.setattr(folders, "_DEPTH", 1)
    listing = files_below(root, "docs", everything, 100)
    assert listing.unreadable == ["docs/caf\ufffd.md", "docs/sub/deep/"]
    (root / "lost+found").mkdir(mode=0)
    assert files_below(root, ".", Wanted(["/*.md"]), 100).files == ["other.md"]


def test_too_many_files_or_names_end_the_walk(root: Path) -> None:
    with pytest.raises(TooManyFiles):
        files_below(root, "docs", everything, 3)
    for number in range(40):
        (root / "docs" / f"{number}.bin").touch()
    assert len(files_below(root, "docs", Wanted(["*.md"]), 5).files) == 3
    with pytest.raises(TooManyFiles):
        files_below(root, "docs", Wanted(["*.md"]), 4)  # 40 others are ten times as many


@pytest.mark.parametrize(
    ("include", "exclude", "path", "wanted"),
    [
        ((), (), "a/b.md", True),
        (("*.md",), (), "a.md", True),
        (("*.md",), (), "a/b/c.md", True),
        (("*.md",), (), "a.mdx", False),
        (("/*.md",), (), "a.md", True),
        (("/*.md",), (), "a/b.md", False),
        (("docs/**",), (), "x/docs/a/b", True),
        (("**/*.txt",), (), "a.txt", True),
        (("*.md",), ("drafts/**",), "drafts/a.md", False),
        ((), ("*.log",), "a/b.log", False),
        (("50%?#.md",), (), "50%?#.md", True),
        (("50%?#.md",), (), "50%41#.md", False),
        (("straße*.md",), (), "a/straße 3.md", True),
    ],
)
def test_globs_choose_by_the_path_below_the_directory(
    include: tuple[str, ...], exclude: tuple[str, ...], path: str, *, wanted: bool
) -> None:
    assert Wanted(include, exclude)(path) is wanted


NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).filter(lambda name: name[0] != ".")


@given(parts=st.lists(NAMES, min_size=1, max_size=3))
@settings(max_examples=100)
def test_a_literal_name_matches_itself(parts: list[str]) -> None:
    path = "/".join(parts)
    literal = "*" not in path
    assert Wanted([f"/{path}"])(path) or not literal
    assert not Wanted((), [f"/{path}"])(path) or not literal


@given(names=st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_file_that_is_listed_can_be_read(tmp_path_factory: pytest.TempPathFactory, names: list[list[str]]) -> None:
    root = tmp_path_factory.mktemp("root")
    made = set()
    for parts in names:
        place = root.joinpath(*parts)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("x")
        except OSError:  # too long, or a file where a directory should be
            continue
        made.add("/".join(parts))
    listing = files_below(root, ".", everything, 100)
    assert set(listing.files) == {name for name in made if "lost+found" not in name.split("/")}
    assert all(read_below(root, name, 10)[0] == b"x" for name in listing.files)
