"""The image tool: what it builds in which order, where it pushes, what it refuses, and what it says when a command fails."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from images import __main__ as tool
from images.builders import Buildah, choose
from images.catalogue import CRAWLER, MB, OPERATOR, ROOT, SERVER, TEST_SERVICES, Image, version
from images.errors import BuildFailed, NotForPublication, PrerequisiteMissing, TooLarge
from images.local_base import LOCAL, copy_python, find_python
from images.process import run
from images.registry import check_publication, destinations, is_private
from images.settings import ImageSettings
from images.trim import compile_all, strip, trim


class Shelf:
    """A builder that only remembers; sizes are given."""

    name = "shelf"

    def __init__(self, sizes: Mapping[str, int], labels: Mapping[str, str] | None = None) -> None:
        self.sizes, self.kept = sizes, labels or {}
        self.built: list[tuple[str, Mapping[str, str]]] = []
        self.pushed: list[tuple[str, bool]] = []

    def build(self, image: Image, tag: str, arguments: Mapping[str, str]) -> None:
        self.built.append((image.local(tag), arguments))

    def size(self, reference: str) -> int:
        return self.sizes.get(reference, MB)

    def labels(self, reference: str) -> Mapping[str, str]:
        return self.kept

    def push(self, reference: str, destination: str, *, plain_http: bool) -> None:
        self.pushed.append((destination, plain_http))

    def has(self, reference: str) -> bool:
        return True


def a_run(monkeypatch: pytest.MonkeyPatch, shelf: Shelf, *images: Image, registry: str | None = "127.0.0.1:5000") -> None:
    monkeypatch.setattr(tool, "choose", lambda settings: shelf)
    tool.make(images, "7", ImageSettings(registry=registry), push=True)


def test_an_image_is_built_measured_and_pushed_over_plain_http_to_a_private_registry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf({"localhost/shield-server:7": 812 * MB})
    a_run(monkeypatch, shelf, SERVER)
    assert shelf.pushed == [("127.0.0.1:5000/shield-server:7", True)]
    assert "812 MB of 900" in capsys.readouterr().out


def test_an_image_above_its_limit_fails_the_run_after_the_others_and_is_not_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf({"localhost/shield-operator:7": 251 * MB})
    with pytest.raises(TooLarge, match="shield-operator has 251 MB, allowed are 250 MB"):
        a_run(monkeypatch, shelf, OPERATOR, SERVER)
    assert shelf.pushed == [("127.0.0.1:5000/shield-server:7", True)]


def test_an_image_on_a_base_made_here_never_goes_to_a_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf({}, {LOCAL: "true"})
    with pytest.raises(NotForPublication):
        a_run(monkeypatch, shelf, SERVER, registry="registry.example.com/team")
    assert shelf.pushed == []


def test_an_image_on_the_public_base_goes_there_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf({})
    a_run(monkeypatch, shelf, CRAWLER, registry="registry.example.com/team/")
    assert shelf.pushed == [("registry.example.com/team/shield-crawler:7", False)]


def test_the_test_services_come_after_the_server_and_stand_on_it() -> None:
    assert tool.with_their_bases([TEST_SERVICES, SERVER]) == [SERVER, TEST_SERVICES]
    assert tool.build_arguments(TEST_SERVICES, "7", ImageSettings())["SERVER"] == "localhost/shield-server:7"


def test_labels_are_those_of_the_commit_not_of_the_clock() -> None:
    first, second = (tool.build_arguments(SERVER, "7", ImageSettings()) for _ in range(2))
    assert first == second
    assert first["VERSION"] == version()


def test_a_list_is_json_and_builds_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("REGISTRY", "127.0.0.1:5000")
    assert tool.main(["--list", "services"]) == 0
    assert '"reference": "127.0.0.1:5000/shield-test-services:' in capsys.readouterr().out


def test_an_unknown_image_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool.main(["sever"])
    assert "there is no image sever; there are" in capsys.readouterr().err


def test_a_missing_builder_ends_with_code_2_and_says_how_to_install_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.main(["server", "--no-push"]) == 2
    assert "apt-get install buildah runc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("registry", "private"),
    [
        ("10.250.0.1:5000", True),
        ("127.0.0.1:5000/team", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("192.168.1.4", True),
        ("8.8.8.8:5000", False),
        ("registry.example.com", False),
        ("localhost.example.com:5000", False),
        ("", False),
    ],
)
def test_only_a_literal_private_address_is_private(registry: str, private: bool) -> None:
    assert is_private(registry) is private


def test_an_image_without_the_label_may_go_anywhere() -> None:
    check_publication("registry.example.com", {})


def test_a_named_registry_wins_and_loses_its_last_slash() -> None:
    assert destinations(ImageSettings(registry="registry.example.com/team/")) == ("registry.example.com/team",)


@pytest.mark.parametrize(
    ("said", "registries"),
    [
        ('{"registry": "10.250.0.1:5000"}', ("10.250.0.1:5000", "10.250.0.1:5000/library")),
        ('{"registry": null}', ()),
        ("[]", ()),
        ("no JSON", ()),
    ],
)
def test_a_running_cluster_is_pushed_to_where_its_nodes_look(
    said: str, registries: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.registry.run", lambda command, within: said)
    assert destinations(ImageSettings(registry=None)) == registries


def test_a_failed_command_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(BuildFailed, match=r"ended with 3:\nout\nerr"):
        run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], within=10)


def test_a_command_that_takes_too_long_is_killed_with_what_it_started() -> None:
    with pytest.raises(BuildFailed, match="took longer than 0 s"):
        run(["sh", "-c", "sleep 60 & wait"], within=0.2)


def test_sigterm_ends_the_builder_that_runs_too(tmp_path: Path) -> None:
    builder = tmp_path / "buildah"
    builder.write_text(
        f"#!/bin/sh\n[ $1 = bud ] || exit 0\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 60\n"
    )
    builder.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "BUILDER": "buildah", "XDG_CACHE_HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-m", "images", "operator", "--no-push"], env=environment, cwd=ROOT)
    until = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < until:
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    process.terminate()
    assert process.wait(20) == 143
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_missing_program_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(PrerequisiteMissing, match="no-such-program is not installed") as caught:
        run(["no-such-program"], within=1)
    assert "apt-get install no-such-program" in caught.value.advice


def test_a_builder_that_was_asked_for_by_name_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissing, match="There is no docker"):
        choose(ImageSettings(builder="docker"))


def test_the_machines_certificates_reach_a_build_as_mounts(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    settings = ImageSettings(isolation="chroot", ca_bundle=bundle, cache=tmp_path / "cache")
    mounts = Buildah(settings)._mounts(tmp_path)
    assert f"{bundle}:/etc/ssl/certs/ca-certificates.crt:ro" in mounts
    assert f"{tmp_path}/cache/uv:{pwd.getpwnam('root').pw_dir}/.cache/uv:rw" in mounts
    assert (tmp_path / "pip.conf").read_text() == "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"


def test_trimming_takes_what_is_listed_and_leaves_the_rest_compiled(tmp_path: Path) -> None:
    for name in (
        "playwright/driver/node",
        "playwright/api.py",
        "numpy/linalg/tests/test_big.py",
        "numpy/linalg/ok.py",
        "other/tests/kept.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    assert trim(tmp_path) == 12
    compile_all(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert left == ["numpy/linalg/ok.py", "other/tests/kept.py", "playwright/api.py"]
    compiled = next((tmp_path / "numpy" / "linalg" / "__pycache__").iterdir())
    assert compiled.read_bytes()[4:8] == (1).to_bytes(4, "little"), "by hash, unchecked (PEP 552)"


def test_a_generated_client_keeps_only_its_bytecode_and_can_be_imported(tmp_path: Path) -> None:
    package = tmp_path / "kubernetes" / "aio"
    package.mkdir(parents=True)
    (tmp_path / "kubernetes" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("ANSWER = 42\n")
    compile_all(tmp_path)
    assert list(tmp_path.rglob("*.py")) == []
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from kubernetes.aio import ANSWER; print(ANSWER)"
    assert run([sys.executable, "-I", "-c", code], within=20) == "42"


def test_only_extension_modules_that_were_not_patched_are_stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"alone/a.so": b"", "single.so": b"", "PIL/b.so": b"$ORIGIN/../pillow.libs", "pillow.libs/libc.so": b""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x7fELF" + content)
    stripped: list[str] = []

    def record(command: list[str | Path], *, check: bool) -> None:
        stripped.append(str(Path(command[-1]).relative_to(tmp_path)))

    monkeypatch.setattr("images.trim.subprocess.run", record)
    strip(tmp_path)
    assert sorted(stripped) == ["alone/a.so", "single.so"]


def test_a_virtual_environment_is_no_python_to_copy(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="that stands on its own"):
        copy_python(Path(sys.executable), tmp_path / "tree", ImageSettings())


def test_without_a_python_to_copy_the_way_to_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissing) as caught:
        find_python(ImageSettings())
    assert "SHIELD_IMAGES_PYTHON" in caught.value.advice
