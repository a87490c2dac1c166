"""What is built, and under which name it is kept."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from kind.binaries import build_command, build_environment
from kind.catalogue import ALL, ETCD, KUBERNETES, MODULES, NODE, PAUSE, REGISTRY, Tool, tool_of


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool.name)
class TestEachTool:
    def test_has_a_committed_module_and_a_version_in_it(self, tool: Tool) -> None:
        assert (tool.directory / "go.sum").is_file()
        assert (tool.version == "") == (not tool.module)

    def test_imports_every_program_that_is_built(self, tool: Tool) -> None:
        listed = (tool.directory / "go.mod").read_text(encoding="utf-8")
        for package in tool.programs.values():
            assert package == "." or f"tool {package}\n" in listed or f"\t{package}\n" in listed

    def test_gives_each_program_the_name_that_the_compiler_will(self, tool: Tool) -> None:
        if len(tool.programs) > 1:
            assert all(package.rpartition("/")[2] == name for name, package in tool.programs.items())


def test_every_directory_of_modules_is_a_tool() -> None:
    assert {path.name for path in MODULES.iterdir()} == {tool.name for tool in ALL}


def test_no_program_is_made_twice() -> None:
    names = [name for tool in ALL for name in tool.programs]
    assert len(names) == len(set(names))
    assert tool_of("kubectl") is KUBERNETES
    assert {"etcd", "containerd", "coredns", "helm", "registry", "pause", "bridge", "kubelet"} <= {
        name for tool in NODE for name in tool.programs
    }


def test_an_unknown_program_is_answered_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="kube-apiserver"):
        tool_of("crictl")


class TestKeys:
    @pytest.fixture
    def tool(self, tmp_path: Path) -> Tool:
        shutil.copytree(MODULES / "registry", tmp_path / "registry")
        return dataclasses.replace(REGISTRY, modules=tmp_path)

    def test_the_same_files_elsewhere_have_the_same_key(self, tool: Tool) -> None:
        assert tool.key == REGISTRY.key

    @pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
    def test_a_changed_file_changes_the_key(self, tool: Tool, file: str) -> None:
        (tool.directory / file).write_text((tool.directory / file).read_text(encoding="utf-8") + "\n", encoding="utf-8")
        assert tool.key != REGISTRY.key

    def test_a_note_beside_them_does_not(self, tool: Tool) -> None:
        (tool.directory / "NOTES.md").write_text("a note", encoding="utf-8")
        assert tool.key == REGISTRY.key

    def test_a_changed_recipe_changes_the_key(self) -> None:
        assert dataclasses.replace(ETCD, tags="other").key != ETCD.key
        assert dataclasses.replace(ETCD, ldflags="-X a=b").key != ETCD.key


class TestCommands:
    def test_one_program_is_named_by_us(self, tmp_path: Path) -> None:
        command = build_command(ETCD, tmp_path)
        assert command[-2:] == [f"{tmp_path}/etcd", "go.etcd.io/etcd/server/v3"]
        assert command[:3] == ["go", "build", "-trimpath"]

    def test_several_go_into_a_directory(self, tmp_path: Path) -> None:
        command = build_command(KUBERNETES, tmp_path)
        assert command[command.index("-o") + 1] == f"{tmp_path}/"
        assert len(command) - command.index("-o") - 2 == 6

    def test_kubernetes_learns_its_version_from_the_linker(self) -> None:
        major, minor = KUBERNETES.version.removeprefix("v").split(".")[:2]
        assert f"gitVersion={KUBERNETES.version}" in KUBERNETES.linker_flags
        assert f"gitMajor={major}" in KUBERNETES.linker_flags
        assert f"gitMinor={minor}" in KUBERNETES.linker_flags
        assert PAUSE.linker_flags == "-s -w"

    def test_builds_are_static_and_keep_to_caches_that_can_be_deleted(self) -> None:
        inherited = {"GOFLAGS": "-p=1", "GOPROXY": "a proxy", "GOMODCACHE": "/mine"}
        environment = build_environment(inherited, modules=Path("/c/m"), objects=Path("/c/o"), temporary=Path("/c/t"))
        assert environment["CGO_ENABLED"] == "0"
        assert environment["GOFLAGS"] == "-p=1 -modcacherw"
        assert environment["GOPROXY"] == "a proxy"
        assert (environment["GOMODCACHE"], environment["GOCACHE"], environment["GOTMPDIR"]) == ("/c/m", "/c/o", "/c/t")
