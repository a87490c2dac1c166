"""A base image where no public registry can be reached: Debian packages and this machine's CPython, behind the public image's name.

For tests on this machine only: its interpreter is whatever is installed here, not what the public image holds. It carries the label `LOCAL`, every
image built on it inherits that, and `python -m images` pushes such an image to no public address.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from images.builders import Buildah
from images.errors import PrerequisiteMissing
from images.process import run
from images.settings import ImageSettings

LOCAL = "io.hx-citadel.shield.local-base"

_PACKAGES = (
    *("ca-certificates", "netbase", "tzdata"),
    "usr-is-merged",
    # what CPython's extension modules link with
    *(
        "libbz2-1.0",
        "libexpat1",
        "libffi8",
        "liblzma5",
        "libncursesw6",
        "libnsl2",
        "libreadline8",
        "libsqlite3-0",
        "libssl3",
        "libuuid1",
        "zlib1g",
    ),
)
_PURGED = (
    # apt's way to a merged /usr, done by then, and 55 MB of Perl that came with it
    *("usrmerge", "libfile-find-rule-perl", "libnumber-compare-perl", "libtext-glob-perl"),
    *("perl", "libperl5.36", "perl-modules-5.36", "libgdbm6", "libgdbm-compat4"),
)
_MIRRORS = (
    "deb http://deb.debian.org/debian bookworm main",
    "deb http://deb.debian.org/debian bookworm-updates main",
    "deb http://deb.debian.org/debian-security bookworm-security main",
)
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
_KEPT = ("/usr/share/doc/*/copyright",)
_NOT_COPIED = shutil.ignore_patterns(
    *("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages"),
    *("config-*", "_tkinter*", "_test*", "xxlimited*"),
)


def make_local_base(builder: Buildah, settings: ImageSettings) -> None:
    """Make the base image in the builder's store.

    Raises:
        PrerequisiteMissing: no mmdebstrap, no root, or no CPython 3.12.
        BuildFailed: a step failed.
    """
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise PrerequisiteMissing(
            f"{settings.base} cannot be pulled, and making it needs root and mmdebstrap.", "As root: apt-get install mmdebstrap"
        )
    python = find_python(settings)
    with tempfile.TemporaryDirectory(prefix="shield-base-", dir="/var/tmp") as directory:
        archive, tree = Path(directory) / "debian.tar", Path(directory) / "local"
        run(
            [
                *(
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    '--aptopt=APT::Install-Recommends "false"',
                    f"--include={','.join(_PACKAGES)}",
                ),
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                *(f"--dpkgopt=path-include={pattern}" for pattern in _KEPT),
                f'--customize-hook=chroot "$1" apt-get purge --yes --quiet=2 {" ".join(_PURGED)}',
                *("bookworm", str(archive), *_MIRRORS),
            ],
            within=settings.base_timeout,
        )
        copy_python(python, tree, settings)
        config = ["--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "--env", "LANG=C.UTF-8", "--cmd", "python3"]
        builder.make(settings.base, archive, tree, [*config, "--label", f"{LOCAL}=true"])


def find_python(settings: ImageSettings) -> Path:
    """A CPython 3.12 of this machine that stands on its own: no virtual environment, not the distribution's.

    Raises:
        PrerequisiteMissing: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [settings.python, *sorted(pyenv.glob("3.12*/bin/python3.12"), reverse=True)]
    if found := shutil.which("python3.12"):
        candidates.append(Path(found))
    for candidate in candidates:
        if candidate is not None and candidate.exists() and _prefix(candidate, settings) not in {Path("/usr"), None}:
            return candidate
    raise PrerequisiteMissing(
        f"{settings.base} cannot be pulled, and there is no CPython 3.12 to make it from.",
        "Install one with pyenv or uv, and name it in SHIELD_IMAGES_PYTHON.",
    )


def copy_python(python: Path, tree: Path, settings: ImageSettings) -> None:
    """Copy an interpreter, its library and pip, without test suites and graphical parts, as the public image has it below /usr/local."""
    prefix = _prefix(python, settings)
    if prefix is None:
        raise PrerequisiteMissing(f"{python} is no CPython 3.12 that stands on its own.")
    library = tree / "lib" / "python3.12"
    shutil.copytree(prefix / "lib" / "python3.12", library, ignore=_NOT_COPIED, symlinks=True)
    (library / "site-packages").mkdir()
    for shared in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy2(shared, tree / "lib", follow_symlinks=False)
    (tree / "bin").mkdir()
    shutil.copy2(prefix / "bin" / "python3.12", tree / "bin" / "python3.12")
    for name in ("python3", "python"):
        (tree / "bin" / name).symlink_to("python3.12")
    if shutil.which("strip"):  # the public image has no debug symbols either
        binaries = [str(path) for path in tree.rglob("*.so*") if not path.is_symlink()]
        run(["strip", "--strip-unneeded", str(tree / "bin" / "python3.12"), *binaries], within=settings.base_timeout)


def _prefix(python: Path, settings: ImageSettings) -> Path | None:
    """Where a CPython 3.12 lives, or None if it is something else or a virtual environment."""
    code = "import json, sys; print(json.dumps([sys.implementation.name, sys.version_info[:2], sys.prefix, sys.base_prefix]))"
    name, version, prefix, base = json.loads(run([str(python), "-I", "-c", code], within=settings.query_timeout))
    return Path(prefix) if name == "cpython" and version == [3, 12] and prefix == base else None
