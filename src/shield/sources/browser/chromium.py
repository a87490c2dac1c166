"""One Chromium: started under its host, spoken to over its pipe, and ended with everything it started.

`start` returns when it answers. It runs without an environment, under a scratch home, behind the proxy, with its own sandbox;
where the kernel allows none (and `browser.sandbox` is `auto`) it is started without, and a warning says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import structlog

from shield.errors import PageRenderFailed
from shield.settings import Settings
from shield.sources.browser.cdp import BrowserGone, CallFailed, Devtools
from shield.sources.browser.proxy import Proxy
from shield.sources.egress import EgressGuard
from shield.sources.exchange import USER_AGENT

_GRACE = 5.0
"""Seconds for a host to kill the browser's processes before it is killed itself."""
_FEATURES = (
    *("AsyncDns", "AutofillServerCommunication", "BackForwardCache", "CertificateTransparencyComponentUpdater", "DialMediaRouteProvider"),
    *("DnsOverHttps", "InterestFeedContentSuggestions", "MediaRouter", "NetworkPrediction", "OptimizationHints", "PreloadTopChromeWebUI"),
    *("Prerender2", "SpareRendererForSitePerProcess", "Translate"),
)
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    # The only way out is the proxy, for loopback too; names are resolved there and nowhere else.
    "--proxy-bypass-list=<-loopback>",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--dns-prefetch-disable",
    "--disable-quic",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    # Nothing of its own accord.
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-notifications",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    "--password-store=basic",
    f"--disable-features={','.join(_FEATURES)}",
    # Pages that are shown beside each other run alike, and nothing is drawn that nobody sees.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--mute-audio",
    f"--user-agent={USER_AGENT}",
)


class Chromium:
    """A running browser; make one with `start`."""

    devtools: Devtools
    proxy: Proxy
    isolated: bool
    """Whether the kernel leaves it no network but the proxy."""
    sandboxed: bool
    """Whether its own sandbox is on."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.shown = 0
        """Pages it has shown so far."""
        self.users = 0
        """Pages it shows now."""
        self.tired = False
        """It is to be replaced as soon as nobody uses it."""

    @classmethod
    async def start(cls, executable: Path, guard: EgressGuard, settings: Settings, *, isolate: bool, sandbox: bool) -> Self:
        """Start a browser.

        Raises:
            PageRenderFailed: it does not start.
        """
        async with AsyncExitStack() as stack:
            browser = cls(stack)
            try:
                async with asyncio.timeout(settings.browser.start.total_seconds()):
                    await browser._start(executable, guard, settings, isolate=isolate, sandbox=sandbox)
            except (OSError, TimeoutError, BrowserGone, CallFailed, ValueError, KeyError) as error:
                raise PageRenderFailed("The browser does not start.") from error
            browser._stack = stack.pop_all()
        return browser

    async def stop(self) -> None:
        """End it and everything it started; returns when all of it is gone."""
        self.tired = True
        await self._stack.aclose()

    async def _start(self, executable: Path, guard: EgressGuard, settings: Settings, *, isolate: bool, sandbox: bool) -> None:
        stack, limits = self._stack, settings.browser
        home = Path(tempfile.mkdtemp(prefix="shield-browser-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        control = await self._host()
        await _send(control, {"home": str(home), "isolate": isolate, "memory": int(limits.memory)})
        ready, descriptors = await _receive(control)
        listener = socket.socket(fileno=descriptors[0])
        stack.callback(listener.close)
        self.isolated = bool(ready["isolated"])
        self.sandboxed = sandbox and not ready["root"]
        self.proxy = Proxy(guard, settings.crawl.page_timeout.total_seconds())
        await self.proxy.start(listener)
        stack.push_async_callback(self.proxy.close)
        command = [str(executable), *_FLAGS, f"--proxy-server=http://127.0.0.1:{int(ready['port'])}", f"--user-data-dir={home}/profile"]
        ours, theirs = socket.socketpair()
        with theirs:
            order = {"command": command + ([] if self.sandboxed else ["--no-sandbox"]), "memory": int(limits.memory)}
            socket.send_fds(control, [json.dumps(order).encode()], [theirs.fileno()])
        self.devtools = await Devtools.over(ours, 8 * int(settings.crawl.max_page_bytes) + 1024 * 1024)
        stack.push_async_callback(self.devtools.close)
        await self.devtools.call("Browser.getVersion")

    async def _host(self) -> socket.socket:
        """A host process, at the other end of the socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-m", "shield.sources.browser.host"),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        self._stack.push_async_callback(_ended, process)
        self._stack.callback(ours.close)
        return ours


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for a host that was told to end."""
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        structlog.get_logger(__name__).warning("browser.host_killed")
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _send(control: socket.socket, message: dict[str, Any]) -> None:
    await asyncio.get_running_loop().sock_sendall(control, json.dumps(message).encode())


async def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The host's next message and its descriptors."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(control, ready)
    try:
        await readable
    finally:
        loop.remove_reader(control)
    data, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
    if not data:
        raise BrowserGone
    message: dict[str, Any] = json.loads(data)
    return message, descriptors
