"""A real LiteLLM proxy between a real Shield and a stand-in for OpenAI; `make test-litellm` runs this, `make test` leaves it out."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from shield.app.embedded import EmbeddedApp
from shield.app.owner import Ownership
from shield.database.embedded import prepare
from shield.settings import load
from tests.peers.llm import LlmPeer, llm_peer

PROGRAM = os.environ.get("SHIELD_TEST_LITELLM")
"""LiteLLM's program in its own environment; see `tests/litellm/environment`."""

collect_ignore_glob = [] if PROGRAM else ["test_*.py"]

MASTER_KEY = "sk-only-for-this-test"
BASE = "behind-litellm"
"""A knowledge base without a graph: these tests are about the way there."""
ERAS = {"shieldold": "2025-11-25", "shieldnew": "2026-07-28"}
"""Shield under two names, spoken to in either era of the protocol; LiteLLM offers the new one only where it is told to."""


@dataclass
class Proxy:
    """A running proxy."""

    url: str
    key: str = MASTER_KEY


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def peer() -> AsyncIterator[LlmPeer]:
    """The stand-in for OpenAI and Ollama behind the proxy."""
    async with llm_peer() as peer:
        yield peer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def app() -> AsyncIterator[EmbeddedApp]:
    """The whole of Shield in this process."""
    directory = Path(tempfile.mkdtemp(prefix="shield-data-"))
    try:
        settings = load(data_dir=directory, port=0, metrics_port=0, jobs={"relay": 0.1, "poll_after": 0.1}, graph={"idle": 2})
        prepare(settings.data_dir)
        ownership = Ownership.acquire(settings.data_dir)
        assert ownership is not None
        async with EmbeddedApp(settings, ownership) as app, httpx.AsyncClient(base_url=app.info.url) as rest:
            made = await rest.post("/knowledge-bases", json={"name": BASE, "graph": False})
            assert made.status_code == 201, made.text
            yield app
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def proxy(peer: LlmPeer, app: EmbeddedApp, folder: Path) -> AsyncIterator[Proxy]:
    """The proxy, without a database, in front of both."""
    assert PROGRAM is not None, "run `make test-litellm`, which makes the environment of LiteLLM"
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(peer, app)), encoding="utf-8")
    async with litellm(PROGRAM, config, folder) as url:
        yield Proxy(url)


def configuration(peer: LlmPeer, app: EmbeddedApp) -> dict[str, Any]:
    """What the proxy offers: two models by OpenAI's dialect, two by Ollama's, and Shield's tools."""

    def model(name: str, target: str, base: str) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": target, "api_base": base, "api_key": "upstream"}}

    return {
        "model_list": [
            model("small", "openai/small", f"{peer.url}/v1"),
            model("embed", "openai/embed", f"{peer.url}/v1"),
            model("small-ollama", "ollama_chat/small", peer.url),
            model("embed-ollama", "ollama/embed", peer.url),
        ],
        "mcp_servers": {
            name: {"url": f"{app.info.url}/mcp", "transport": "http", "protocol_version": version} for name, version in ERAS.items()
        },
        "general_settings": {"master_key": MASTER_KEY, "mcp_advertised_versions": list(ERAS.values())},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    """Where the proxy's configuration and log lie."""
    directory = Path(tempfile.mkdtemp(prefix="shield-litellm-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def litellm(program: str, config: Path, folder: Path) -> AsyncIterator[str]:
    """A proxy on a free port, ready to answer; its log is shown when it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched at start
        "LITELLM_TELEMETRY": "False",
        "NO_PROXY": "*",
    }
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(120):
            while True:
                if process.poll() is not None:
                    pytest.fail(f"LiteLLM did not start:\n{log.read_text(errors='replace')[-4000:]}")
                try:
                    if (await client.get(f"{url}/health/liveliness")).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
