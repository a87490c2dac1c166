"""The built images as a strict cluster runs them: no root, a read-only root file system, no capabilities; what they hold and what they can do.

Run by `make test-kubernetes`, and on their own after `make images ARGS="operator server crawler services --no-push"`:

    tools/run pytest -n0 -m kubernetes tests/kubernetes/test_images.py

Needs root, buildah and runc, which are installed where they are missing and can be. A container here is runc's own on the image's
mounted files, so that what is asserted is the kernel's answer.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.builders import choose
from images.catalogue import ALL, PRODUCT, ROOT, Image, version
from images.settings import ImageSettings
from tests.kubernetes.sandbox import VOLUMES, Open, sandboxes

pytestmark = pytest.mark.usefixtures("sandbox")  # every test here, whatever it asks: without the programs it fails and names them

every = pytest.mark.parametrize("image", PRODUCT, ids=[image.target for image in PRODUCT])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    with sandboxes(tmp_path_factory.mktemp("images")) as get:
        yield get


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


def test_a_job_converts_word_pdf_and_html_from_a_read_only_volume(sandbox: Open) -> None:
    """As the pod of an IngestJob with a claim does; with `--strict` a single document that fails would make it 20."""
    order = {"uid": str(uuid.uuid4()), "spec": {"type": "documents", "path": "."}}
    write = f"open('/tmp/order.json', 'w').write({json.dumps(json.dumps(order))})"
    become = "os.execvp('tini', ['tini', '--', 'shield', 'run-job', '--strict', '--spec', '/tmp/order.json'])"
    environment = {"SHIELD_DOCUMENT_ROOT": "/source"}
    status, said = sandbox(ALL["server"]).python(
        f"import os; {write}; {become}", environment=environment, source=ROOT / "examples", within=280
    )
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


def test_a_crawl_stores_what_a_page_writes_with_its_script(sandbox: Open) -> None:
    """The browser of the crawler's image, found and driven by Shield under a pod's restrictions."""
    page = "<title>t</title><main id=a></main><script>document.getElementById('a').textContent = 'Valve seven opens ' + 'at dawn.'</script>"
    order = {"uid": str(uuid.uuid4()), "spec": {"type": "crawl", "url": "http://127.0.0.1:8088/", "render": "browser", "max_pages": 1}}
    code = f"""
import http.server, socketserver, subprocess, threading
from pathlib import Path
Path('/tmp/site').mkdir()
Path('/tmp/site/index.html').write_text({page!r})
Path('/tmp/order.json').write_text({json.dumps(order)!r})
handler = lambda *a: http.server.SimpleHTTPRequestHandler(*a, directory='/tmp/site')
threading.Thread(target=socketserver.ThreadingTCPServer(('127.0.0.1', 8088), handler).serve_forever, daemon=True).start()
done = subprocess.run(['tini', '-s', '--', 'shield', 'run-job', '--strict', '--spec', '/tmp/order.json'], timeout=200)
import psycopg
from shield.database.embedded import EmbeddedPostgres
with EmbeddedPostgres(Path('/var/lib/shield/data')) as server, psycopg.connect(server.dsn) as connection:
    print('end', done.returncode, [row[0] for row in connection.execute('SELECT text FROM chunks')])
"""
    status, said = sandbox(ALL["crawler"]).python(code, environment={"SHIELD_EGRESS_ALLOW": "127.0.0.1/32:8088"}, within=280)
    assert status == 0, said[-3000:]
    assert "end 0 ['Valve seven opens at dawn.']" in said, said[-3000:]
