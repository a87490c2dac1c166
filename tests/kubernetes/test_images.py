"""The built images as a strict cluster runs them: no root, a read-only root file system, no capabilities; what they hold and what they can do.

Run by `make test-kubernetes`, and on their own after `make images ARGS="operator server crawler services --no-push"`:

    tools/run pytest -n0 -m kubernetes tests/kubernetes/test_images.py

Needs root and runc. A container here is runc's own on the image's mounted files, so that what is asserted is the kernel's answer.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from images.builders import Buildah, choose
from images.catalogue import ALL, PRODUCT, Image, version
from images.process import run
from images.settings import ImageSettings

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("runc") is None, reason="needs root and runc")

VOLUMES = ("/tmp", "/var/lib/shield")
every = pytest.mark.parametrize("image", PRODUCT, ids=[image.target for image in PRODUCT])


def an_empty_dir(path: Path) -> Path:
    """A directory as the kubelet makes an emptyDir for a pod with an fsGroup: root's own, writable for the group."""
    path.mkdir()
    os.chown(path, 0, 10001)
    path.chmod(0o2777)
    return path


class Sandbox:
    """An image's files, mounted, and containers of it under the restrictions of a pod."""

    def __init__(self, root: Path, config: dict[str, Any], directory: Path) -> None:
        self.root, self.config, self._directory = root, config, directory

    def begin(
        self, *arguments: str, environment: dict[str, str] | None = None, entrypoint: list[str] | None = None
    ) -> tuple[str, subprocess.Popen[str]]:
        """Start a container without any network but loopback; its name and process."""
        name = f"shield-image-{uuid.uuid4().hex[:12]}"
        bundle = self._directory / name
        bundle.mkdir()
        command = [*(entrypoint if entrypoint is not None else self.config.get("Entrypoint", [])), *arguments]
        volumes = {path: an_empty_dir(bundle / f"volume-{number}") for number, path in enumerate(VOLUMES)}
        (bundle / "config.json").write_text(json.dumps(self._specification(command, environment or {}, volumes)))
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return name, process

    def run(
        self, *arguments: str, environment: dict[str, str] | None = None, entrypoint: list[str] | None = None, within: float = 120
    ) -> tuple[int, str]:
        """Run a container to its end; exit code and everything it said."""
        name, process = self.begin(*arguments, environment=environment, entrypoint=entrypoint)
        try:
            said, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            subprocess.run(["runc", "kill", name, "KILL"], check=False)
            said, _ = process.communicate(timeout=30)
            pytest.fail(f"{arguments} took longer than {within:.0f} s:\n{said[-3000:]}")
        finally:
            subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)
        return process.returncode, said

    def python(self, code: str, **options: Any) -> tuple[int, str]:
        """Run a piece of Python."""
        return self.run("-c", code, entrypoint=["python"], **options)

    def _specification(self, command: list[str], environment: dict[str, str], volumes: dict[str, Path]) -> dict[str, Any]:
        user, _, group = self.config["User"].partition(":")
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777", "size=65536k"]},
            *(
                {"destination": path, "type": "bind", "source": str(volume), "options": ["bind", "nosuid", "nodev"]}
                for path, volume in volumes.items()
            ),
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": int(user), "gid": int(group), "additionalGids": [10001]},
                "args": command,
                "env": given,
                "cwd": self.config.get("WorkingDir") or "/",
                "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "hostname": "pod",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")], "maskedPaths": ["/proc/kcore"]},
        }


@contextmanager
def mounted(image: Image, directory: Path) -> Iterator[Sandbox]:
    """The image's files on a mount of their own."""
    builder = choose(ImageSettings(builder="buildah"))
    assert isinstance(builder, Buildah)
    reference = image.local(version())
    if not builder.has(reference):
        pytest.fail(f"{reference} is not built: make images ARGS='{image.target} --no-push'")
    config = json.loads(run(["buildah", "inspect", "--type", "image", reference], within=60))["OCIv1"]["config"]
    container = run(["buildah", "from", "--pull-never", reference], within=60)
    try:
        root = Path(run(["buildah", "mount", container], within=60))
        yield Sandbox(root, config, directory)
    finally:
        run(["buildah", "rm", container], within=60)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Image], Sandbox]]:
    """Mounts each image once."""
    from contextlib import ExitStack

    opened: dict[str, Sandbox] = {}
    with ExitStack() as stack:

        def get(image: Image) -> Sandbox:
            if image.name not in opened:
                opened[image.name] = stack.enter_context(mounted(image, tmp_path_factory.mktemp(image.target)))
            return opened[image.name]

        yield get


Open = Callable[[Image], Sandbox]


@every
def test_it_runs_as_10001_who_can_write_nowhere_but_in_two_directories(image: Image, sandbox: Open) -> None:
    code = """
import os, json
places = []
for directory, names, _ in os.walk('/', topdown=True):
    if directory == '/':
        names[:] = [name for name in names if name not in ('proc', 'sys')]
    try:
        handle = os.open(directory, os.O_TMPFILE | os.O_WRONLY)
        os.close(handle)
        places.append(directory)
    except OSError:
        pass
print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), sorted(places)]))
"""
    status, said = sandbox(image).python(code)
    assert status == 0, said
    uid, gid, groups, places = json.loads(said)
    assert (uid, gid, groups) == (10001, 10001, [10001])
    assert [place for place in places if not place.startswith(("/dev/shm", *VOLUMES))] == []
    assert set(VOLUMES) <= set(places)


@every
def test_no_file_belongs_to_the_user_or_lets_him_gain_rights(image: Image, sandbox: Open) -> None:
    """Set-uid programs of Debian are there, but without new privileges (every pod of ours) they gain nothing."""
    owned, root = [], sandbox(image).root
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and (status.st_uid == 10001 or status.st_mode & 0o002):
                owned.append(str(path.relative_to(root)))
    assert owned == []


@every
def test_neither_compilers_nor_installers_are_in_it(image: Image, sandbox: Open) -> None:
    root = sandbox(image).root
    programs = {
        path.name
        for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/shield/bin")
        for path in (root / folder).iterdir()
    }
    assert not programs & {"gcc", "cc", "make", "ld", "as", "git", "curl", "wget", "pip", "pip3", "uv", "hatchling"}
    status, said = sandbox(image).python(
        "import importlib.util as u; print([n for n in ('pip', 'ensurepip', 'hatchling', 'uv') if u.find_spec(n)])"
    )
    assert (status, said.strip()) == (0, "[]")
    assert not (root / "build").exists()
    assert not list((root / "opt" / "shield").rglob("uv.lock"))


@every
def test_what_was_mounted_for_the_build_is_not_in_it(image: Image, sandbox: Open) -> None:
    root = sandbox(image).root
    assert not (root / "root" / ".cache" / "uv" / "wheels-v5").exists()
    for name in ("etc/pip.conf", "etc/uv/uv.toml"):
        assert not (root / name).exists() or (root / name).stat().st_size == 0
    assert (root / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000, "Debian's own certificates"


@every
def test_its_bill_of_materials_lists_what_is_installed(image: Image, sandbox: Open) -> None:
    bill = json.loads((sandbox(image).root / "usr/local/share/shield/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "1.6", image.name)
    listed = {entry["purl"].partition("@")[0] for entry in bill["components"]}
    assert {"pkg:generic/python", "pkg:deb/debian/libc6", "pkg:pypi/pydantic"} <= listed
    assert not listed & {"pkg:pypi/pip", "pkg:pypi/uv", "pkg:pypi/hatchling", "pkg:pypi/pytest"}
    status, said = sandbox(image).run("/usr/local/share/shield/sbom.py", image.name, "/dev/stdout", entrypoint=["python"])
    assert (status, json.loads(said)) == (0, bill)


@every
def test_all_python_is_compiled_before(image: Image, sandbox: Open) -> None:
    packages = sandbox(image).root / "opt/shield/lib/python3.12/site-packages"
    own = packages / ("shield_operator" if image.target == "operator" else "shield")
    sources = list(own.rglob("*.py"))
    assert sources
    assert [path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.cpython-312.pyc").exists()] == []


@every
def test_its_size_is_within_its_limit(image: Image) -> None:
    assert choose(ImageSettings(builder="buildah")).size(image.local(version())) <= image.limit


def test_the_operators_image_holds_nothing_of_the_server(sandbox: Open) -> None:
    code = "import importlib.util as u; print([n for n in ('shield', 'onnxruntime', 'docling', 'lightrag') if u.find_spec(n)])"
    assert sandbox(ALL["operator"]).python(code) == (0, "[]\n")


@pytest.mark.parametrize("target", ["server", "crawler"])
def test_the_command_answers_and_passes_its_exit_code_on(target: str, sandbox: Open) -> None:
    image = ALL[target]
    assert sandbox(image).run("--version") == (0, f"{version()}\n") or version() in sandbox(image).run("--version")[1]
    assert sandbox(image).run("run-job", "--spec", "/nowhere.json")[0] == 10


def test_the_doctor_finds_everything_it_needs(sandbox: Open) -> None:
    status, said = sandbox(ALL["server"]).run("doctor", within=240)
    assert status == 0, said


def test_one_document_becomes_an_answer_on_a_read_only_root(sandbox: Open) -> None:
    """Everything in one process: PostgreSQL, conversion, embedding, graph, MCP; no network."""
    status, said = sandbox(ALL["server"]).run("up", "--once", environment={"SHIELD_METRICS_PORT": "0", "COLUMNS": "200"}, within=280)
    assert status == 0, said[-3000:]
    assert "answered with" in said


def test_a_job_in_a_pod_of_its_own_ends_well_and_a_signal_hands_it_back(sandbox: Open) -> None:
    order = {
        "uid": str(uuid.uuid4()),
        "principal": "k8s:team",
        "spec": {"type": "document", "text": "The valve opens at 7 bar.", "filename": "v.md"},
    }
    code = f"import json, os; open('/tmp/order.json', 'w').write({json.dumps(json.dumps(order))}); os.execvp('tini', ['tini', '--', 'shield', 'run-job', '--spec', '/tmp/order.json'])"
    status, said = sandbox(ALL["server"]).python(code, within=240)
    assert status == 0, said[-3000:]
    assert "run_job.ended" in said


def test_sigterm_to_process_one_reaches_shield(sandbox: Open) -> None:
    name, process = sandbox(ALL["server"]).begin("up", "--no-samples", environment={"SHIELD_METRICS_PORT": "0"})
    said = []
    try:
        assert process.stdout is not None
        until = time.monotonic() + 120
        for line in process.stdout:
            said.append(line)
            if "Shield serves at" in line or time.monotonic() > until:
                break
        subprocess.run(["runc", "kill", name, "TERM"], check=True)
        rest, _ = process.communicate(timeout=60)
    finally:
        subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)
    assert process.returncode in {0, 128 + signal.SIGTERM}, "".join(said) + rest
    assert "Shield serves at" in "".join(said)


def test_chromium_of_the_crawler_shows_a_page(sandbox: Open) -> None:
    code = """
import asyncio, json, threading, http.server, socketserver
from pathlib import Path
Path('/tmp/site').mkdir()
Path('/tmp/site/index.html').write_text("<title>t</title><div id=a></div><script>document.getElementById('a').textContent = 'made by ' + 'script'</script>")
handler = lambda *a: http.server.SimpleHTTPRequestHandler(*a, directory='/tmp/site')
server = socketserver.ThreadingTCPServer(('127.0.0.1', 8088), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
import subprocess
done = subprocess.run(['chromium', '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--user-data-dir=/tmp/chromium', '--dump-dom', 'http://127.0.0.1:8088/'], capture_output=True, text=True, timeout=90)
print(done.stdout)
"""
    status, said = sandbox(ALL["crawler"]).python(code, within=180)
    assert status == 0, said
    assert "made by script" in said
