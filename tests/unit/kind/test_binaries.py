"""Builds: once, resumable, and clear about what they lack. `go` is a small program here; tests/kubernetes uses what the real one made."""

from __future__ import annotations

import fcntl
import shutil
import sys
from pathlib import Path

import pytest
from pydantic import ByteSize

from kind.binaries import Store, directory
from kind.catalogue import GATEWAY_API, MODULES, PAUSE, Tool
from kind.console import silent
from kind.errors import BuildFailed, DiskFull, NotReadyInTime, PrerequisiteMissing
from kind.settings import KindSettings

FAKE_GO = """#!{python}
import os, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments[:2] == ["env", "GOVERSION"]:
    print({version!r})
elif arguments[:2] == ["list", "-m"]:
    print({upstream!r})
elif arguments[0] == "build":
    if os.path.exists({broken!r}):
        sys.exit("main.go:1: no such thing")
    pathlib.Path(os.environ["GOCACHE"], "object").touch()
    pathlib.Path(arguments[arguments.index("-o") + 1]).write_text("a program")
"""


class FakeGo:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._log, self.broken, self.upstream = directory / "go.log", directory / "broken", directory / "upstream"
        self.says("go1.26.8")
        monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")

    def says(self, version: str) -> None:
        program = self._directory / "go"
        program.write_text(
            FAKE_GO.format(
                python=sys.executable, log=str(self._log), broken=str(self.broken), version=version, upstream=str(self.upstream)
            ),
            encoding="utf-8",
        )
        program.chmod(0o755)

    @property
    def builds(self) -> int:
        return sum(line.startswith("build") for line in self._log.read_text(encoding="utf-8").splitlines()) if self._log.exists() else 0


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    (tmp_path / "path").mkdir()
    return FakeGo(tmp_path / "path", monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> KindSettings:
    return KindSettings(cache=tmp_path / "cache", build_free_disk=ByteSize(1), build_lock_timeout=0.1)


@pytest.fixture
def store(settings: KindSettings) -> Store:
    return Store(settings, silent)


def test_a_tool_is_built_once_and_its_sources_are_dropped(go: FakeGo, store: Store, settings: KindSettings) -> None:
    store.ensure([PAUSE])
    store.ensure([PAUSE])
    assert (store.directory(PAUSE) / "pause").read_text(encoding="utf-8") == "a program"
    assert go.builds == 1
    assert sorted(path.name for path in settings.cache.iterdir()) == ["bin", "build.lock"]


def test_files_of_a_module_without_programs_are_fetched_and_kept(go: FakeGo, settings: KindSettings) -> None:
    (go.upstream / "config/crd/standard").mkdir(parents=True)
    (go.upstream / "config/crd/standard/gateways.yaml").write_text("kind: x", encoding="utf-8")
    made = directory(GATEWAY_API, settings, silent)
    assert [(path.name, path.read_text(encoding="utf-8")) for path in made.iterdir()] == [("gateways.yaml", "kind: x")]
    assert go.builds == 0


def test_each_build_is_announced_and_timed(go: FakeGo, settings: KindSettings) -> None:
    lines: list[str] = []
    Store(settings, lines.append).ensure([PAUSE])
    assert lines[0] == "  build pause ..."
    assert lines[1].startswith("  build pause: ")
    assert lines[1].endswith(" s")


def test_a_failed_build_shows_the_compilers_words_and_leaves_what_the_next_one_can_use(
    go: FakeGo, store: Store, settings: KindSettings
) -> None:
    go.broken.touch()
    with pytest.raises(BuildFailed, match="no such thing"):
        store.ensure([PAUSE])
    assert store.missing([PAUSE]) == [PAUSE]
    assert (settings.cache / "build").is_dir()
    go.broken.unlink()
    store.ensure([PAUSE])
    assert store.missing([PAUSE]) == []
    assert not (settings.cache / "build").exists()


def test_half_a_build_that_was_killed_is_not_taken_for_a_whole_one(go: FakeGo, store: Store) -> None:
    half = store.directory(PAUSE).with_name(f".{store.directory(PAUSE).name}")
    half.mkdir(parents=True)
    (half / "rubbish").touch()
    store.ensure([PAUSE])
    assert [path.name for path in store.directory(PAUSE).iterdir()] == ["pause"]


def test_a_build_that_makes_less_than_it_should_is_refused(go: FakeGo, store: Store, tmp_path: Path) -> None:
    shutil.copytree(MODULES / "pause", tmp_path / "two")
    two = Tool("two", {"one": "example.org/one", "two": "example.org/two"}, modules=tmp_path)
    with pytest.raises(BuildFailed):
        store.ensure([two])
    assert store.missing([two]) == [two]


def test_without_go_the_error_says_how_to_get_it(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissing, match="Go is missing") as failed:
        store.ensure([PAUSE])
    assert "go.dev/dl" in failed.value.advice


@pytest.mark.parametrize("version", ["go1.19.8", "devel", ""])
def test_an_old_go_is_refused(go: FakeGo, store: Store, version: str) -> None:
    go.says(version)
    with pytest.raises(PrerequisiteMissing, match="too old"):
        store.ensure([PAUSE])
    assert go.builds == 0


def test_a_full_disk_is_noticed_before_the_build(go: FakeGo, settings: KindSettings) -> None:
    with pytest.raises(DiskFull, match="needs 931323 GiB"):
        Store(settings.model_copy(update={"build_free_disk": ByteSize(10**15)}), silent).ensure([PAUSE])
    assert go.builds == 0


def test_a_second_start_waits_for_the_first_and_gives_up_in_time(go: FakeGo, settings: KindSettings) -> None:
    lines: list[str] = []
    settings.cache.mkdir()
    with (settings.cache / "build.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(NotReadyInTime):
            Store(settings, lines.append).ensure([PAUSE])
    assert lines == ["  another start is building: waiting for it"]
    Store(settings, silent).ensure([PAUSE])
    assert go.builds == 1
