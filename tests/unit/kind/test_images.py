"""Images of one program: the same program is the same image, and a registry that refuses is named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from kind.control_plane import free_port
from kind.images import PushFailed, _archive, push_program


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "pause"
    path.write_bytes(b"\x7fELF")
    return path


def test_the_layer_has_the_program_and_nothing_of_this_machine(program: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(_archive(program, "bin/pause"))) as archive:
        (entry,) = archive.getmembers()
        assert (entry.name, entry.mode, entry.uid, entry.mtime) == ("bin/pause", 0o755, 0, 0)
    again = program.with_name("other") / "pause"
    again.parent.mkdir()
    again.write_bytes(b"\x7fELF")
    assert _archive(again, "pause") == _archive(program, "pause")


def test_a_registry_that_is_not_there_is_named(program: Path) -> None:
    registry = f"127.0.0.1:{free_port()}"
    with pytest.raises(PushFailed, match=f"{registry} did not take pause:3.10"):
        push_program(registry, "pause", "3.10", program)
