"""Files by path: below the document root, through no link, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shield.errors import DocumentRootRefused, DocumentTooLarge
from shield.sources.paths import read_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    below = tmp_path / "root"
    (below / "sub").mkdir(parents=True)
    (below / "sub" / "file.md").write_bytes(b"inside")
    (tmp_path / "secret.md").write_bytes(b"outside")
    return below


@pytest.mark.parametrize("path", ["sub/file.md", "./sub//file.md"])
def test_a_file_below_the_root_is_read(root: Path, path: str) -> None:
    assert read_below(root, path, 100) == (b"inside", "file.md")


def test_an_absolute_path_below_the_root_is_read_also_through_a_linked_root(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert read_below(root, str(root / "sub/file.md"), 100)[0] == b"inside"
    assert read_below(link, str(link / "sub/file.md"), 100)[0] == b"inside"
    assert read_below(link, str(root / "sub/file.md"), 100)[0] == b"inside"


@pytest.mark.parametrize(
    "path", ["../secret.md", "sub/../../secret.md", "/etc/passwd", "", ".", "/", "sub", "none.md", "a\0b", "sub/file.md/x", "x" * 5000]
)
def test_what_is_no_file_below_the_root_is_refused(root: Path, path: str) -> None:
    with pytest.raises(DocumentRootRefused) as caught:
        read_below(root, path, 100)
    assert "secret" not in caught.value.message


def test_links_are_not_followed_in_any_place(root: Path) -> None:
    (root / "leaf.md").symlink_to(root.parent / "secret.md")
    (root / "folder").symlink_to(root.parent)
    (root / "inner.md").symlink_to(root / "sub" / "file.md")
    for path in ("leaf.md", "folder/secret.md", "inner.md"):
        with pytest.raises(DocumentRootRefused):
            read_below(root, path, 100)


def test_a_pipe_and_a_device_are_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "pipe.md")
    for base, name in ((root, "pipe.md"), (Path("/dev"), "zero")):
        with pytest.raises(DocumentRootRefused):
            read_below(base, name, 100)


def test_the_limit_holds_also_for_files_that_hide_their_size(root: Path) -> None:
    with pytest.raises(DocumentTooLarge):
        read_below(root, "sub/file.md", 5)
    assert read_below(root, "sub/file.md", 6)[0] == b"inside"
    with pytest.raises(DocumentTooLarge):
        read_below(Path("/proc/self"), "status", 20)  # says 0 bytes


def test_no_descriptor_stays_open(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("sub/file.md", "sub", "sub/none", "none/x", "../x"):
        try:
            read_below(root, path, 100)
        except DocumentRootRefused:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.sampled_from(["..", ".", "sub", "file.md", "secret.md", "", "/", "folder"]), max_size=6))
def test_no_path_ever_reads_outside(root: Path, parts: list[str]) -> None:
    try:
        content, _ = read_below(root, "/".join(parts), 100)
    except DocumentRootRefused:
        return
    assert content == b"inside"
