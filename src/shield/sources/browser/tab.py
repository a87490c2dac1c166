"""Showing one page: its own context, its own lane, nothing left of it afterwards.

The page's document is not asked for again: the browser is given the bytes that the fetcher got, under the address where the
redirects ended, so robots.txt, scope, politeness, caps and counting are the fetcher's, whatever reads the page. Should the
page's scripts or a refresh lead on to another address, that document too comes through the fetcher and its gate; an address
that is refused stays where it is, and the page is read as it stands. What scripts load (scripts, styles, data) goes through
the proxy; images, media, fonts, frames, downloads, beacons, sockets, peer connections and service workers are not let through.

A page counts as complete when it is parsed and its requests have rested for `browser.quiet`; `browser.settle` bounds the
wait, `crawl.page_timeout` the whole. Then the tree is written out as HTML, without its scripts, from a world of its own
that the page cannot touch; shadow trees are written where their hosts stand.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from shield.errors import PageRedirectLoop, PageRenderFailed, PageTimeout, PageTooLarge, ShieldError
from shield.settings import Settings
from shield.sources.browser.cdp import BrowserGone, CallFailed
from shield.sources.browser.chromium import Chromium
from shield.sources.browser.proxy import GREETING, Lane
from shield.sources.browser.shell import shows_nothing
from shield.sources.fetch import HTML_TYPES, Fetched
from shield.sources.urls import canonical

Follow = Callable[[str], Awaitable[Fetched]]
"""Fetches the address a page leads on to, with the crawl's own gate."""

_LOADED = frozenset({"Script", "Stylesheet", "XHR", "Fetch", "Preflight"})
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
_CLOSED = """
(() => {
  const Silent = class extends EventTarget {
    constructor() { super(); this.readyState = 3; setTimeout(() => { for (const kind of ['error', 'close']) {
      const event = new Event(kind); this.dispatchEvent(event); if (typeof this['on' + kind] === 'function') this['on' + kind](event);
    } }); }
    send() {} close() {}
  };
  globalThis.WebSocket = Silent; globalThis.EventSource = Silent;
  for (const name of ['WebSocketStream', 'WebTransport', 'RTCPeerConnection', 'webkitRTCPeerConnection', 'SharedWorker'])
    delete globalThis[name];
  if (navigator.serviceWorker) navigator.serviceWorker.register = () => Promise.reject(new Error('closed'));
  globalThis.open = () => null; globalThis.print = () => {};
})()
"""
_WRITE_OUT = """
(most => {
  const shadows = [], seek = node => { for (const one of node.querySelectorAll('*')) if (one.shadowRoot) {
    shadows.push(one.shadowRoot); seek(one.shadowRoot); } };
  seek(document);
  for (const tree of [document, ...shadows]) for (const one of tree.querySelectorAll('script, style')) one.remove();
  const root = document.documentElement;
  if (!root) return '';
  let html = root.outerHTML;
  if (shadows.length) {
    const open = [];
    html = root.getHTML({shadowRoots: shadows}).replace(/<template\\b[^>]*>|<\\/template>/g, tag => tag[1] === '/'
      ? (open.pop() ? '</div>' : tag) : (open.push(tag.includes('shadowrootmode=')), open.at(-1) ? '<div>' : tag));
  }
  return html.length > most ? null : '<!doctype html>' + html;
})(%d)
"""


class Tab:
    """Shows one page in a running browser."""

    def __init__(self, browser: Chromium, page: Fetched, follow: Follow, settings: Settings) -> None:
        self._browser = browser
        self._devtools = browser.devtools
        self._page = page
        self._follow = follow
        self._settings = settings
        self._session = ""
        self._frame = ""
        self._lane: Lane
        self._documents: dict[str, Fetched] = {}
        self._shown = page
        self._hops = 0
        self._refusal: ShieldError | None = None
        self._requests = 0
        self._pending: set[str] = set()
        self._stirred = asyncio.Event()
        self._parsed = asyncio.Event()
        self._arrived = False
        """The page's document has taken the place of the empty one."""
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._errands: set[asyncio.Task[None]] = set()

    async def show(self) -> Fetched:
        """The page as its scripts left it.

        Raises:
            PageTimeout, PageTooLarge, PageRenderFailed: the page gave nothing.
            BrowserGone: the browser died meanwhile; it may not have been this page's doing.
        """
        work = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout(self._settings.crawl.page_timeout.total_seconds()):
                await asyncio.wait((work, self._broken), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            raise PageTimeout("The page's scripts did not come to an end in time.") from error
        finally:
            work.cancel()
            for errand in self._errands:
                errand.cancel()
            await asyncio.gather(work, *self._errands, return_exceptions=True)
            broken = None if self._broken.cancel() else self._broken.exception()
        if broken is not None:
            raise broken
        try:
            return work.result()
        except CallFailed as error:
            raise PageRenderFailed from error

    async def _work(self) -> Fetched:
        limits = self._settings.browser
        async with self._browser.proxy.lane(int(limits.max_transfer)) as lane, self._opened():
            self._lane = lane
            await self._call("Page.navigate", url=GREETING)  # answered 204: the browser stays where it is, and knows the password
            self._documents[self._page.final_url] = self._page
            answer = await self._call("Page.navigate", url=self._page.final_url)
            if answer.get("errorText"):
                raise PageRenderFailed
            await self._settle()
            body = (await self._written_out()).encode("utf-8", "replace")
            if lane.overdrawn:
                raise PageTooLarge("The page's scripts load more than a page may.")
            if self._refusal is not None and shows_nothing(body):
                raise self._refusal
        return replace(
            self._shown,
            url=self._page.url,
            body=body,
            content_type="text/html",
            charset="utf-8",
            etag=None,  # they speak of the document, not of what its scripts loaded
            last_modified=None,
        )

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """A tab in a fresh context, ready to be sent somewhere."""
        context = (await self._devtools.call("Target.createBrowserContext", disposeOnDetach=True))["browserContextId"]
        try:
            await self._devtools.call("Browser.setDownloadBehavior", behavior="deny", browserContextId=context)
            # Hidden: a tab with a window costs three times as much.
            made = await self._devtools.call("Target.createTarget", url="about:blank", hidden=True, browserContextId=context)
            self._frame = made["targetId"]
            attached = await self._devtools.call("Target.attachToTarget", targetId=self._frame, flatten=True)
            self._session = attached["sessionId"]
            self._devtools.listen(self._session, self._heard)
            await asyncio.gather(
                self._call("Inspector.enable"),
                self._call("Page.enable"),
                self._call("Network.enable"),
                self._call("Network.setBypassServiceWorker", bypass=True),
                self._call("Page.addScriptToEvaluateOnNewDocument", source=_CLOSED),
                self._call("Fetch.enable", patterns=[{"urlPattern": "*"}], handleAuthRequests=True),
            )
            yield
        finally:
            self._devtools.forget(self._session)
            with contextlib.suppress(BrowserGone):
                if self._frame:  # a hidden tab does not go with its context
                    self._devtools.order("Target.closeTarget", targetId=self._frame)
                self._devtools.order("Target.disposeBrowserContext", browserContextId=context)

    async def _settle(self) -> None:
        """Wait until the page is parsed and its requests rest."""
        limits = self._settings.browser
        await self._parsed.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.settle.total_seconds()):
                while True:
                    self._stirred.clear()
                    busy = self._pending or self._errands or not self._parsed.is_set()
                    rest = None if busy else limits.quiet.total_seconds()
                    try:
                        await asyncio.wait_for(self._stirred.wait(), rest)
                    except TimeoutError:
                        return

    async def _written_out(self) -> str:
        world = await self._call("Page.createIsolatedWorld", frameId=self._frame, worldName="shield")
        most = int(self._settings.crawl.max_page_bytes)
        answer = await self._call(
            "Runtime.evaluate", expression=_WRITE_OUT % most, contextId=world["executionContextId"], returnByValue=True
        )
        html = answer.get("result", {}).get("value")
        if html is None and "exceptionDetails" not in answer:
            raise PageTooLarge("The page grows larger than allowed.")
        if not isinstance(html, str):
            raise PageRenderFailed
        return html

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._devtools.call(method, self._session, **params)

    def _order(self, method: str, **params: Any) -> None:
        self._devtools.order(method, self._session, **params)

    # -- what the browser reports; nothing here waits ------------------------------------------------------------------

    def _heard(self, event: str, said: dict[str, Any]) -> None:
        match event:
            case "Fetch.requestPaused":
                self._request(said["requestId"], said["request"], str(said["resourceType"]), said.get("frameId"))
            case "Fetch.authRequired":
                self._authenticate(said["requestId"], proxy=said["authChallenge"].get("source") == "Proxy")
            case "Network.requestWillBeSent":
                self._pending.add(said["requestId"])
            case "Network.loadingFinished" | "Network.loadingFailed":
                self._pending.discard(said["requestId"])
            case "Page.frameNavigated" if "parentId" not in said["frame"]:
                self._pending.clear()
                self._parsed.clear()
                self._arrived = True
            case "Page.domContentEventFired":
                self._at_rest()
            case "Page.frameStoppedLoading" if said["frameId"] == self._frame:  # parsed, or given up half-way to go elsewhere
                self._at_rest()
            case "Page.javascriptDialogOpening":
                self._order("Page.handleJavaScriptDialog", accept=said.get("type") == "beforeunload")
            case "Inspector.targetCrashed":
                self._break(PageRenderFailed("The page took too much memory, or crashed the browser."))
            case "gone":
                self._break(BrowserGone())
        self._stirred.set()

    def _at_rest(self) -> None:
        if self._arrived:
            self._parsed.set()

    def _break(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    def _authenticate(self, request: str, *, proxy: bool) -> None:
        """The proxy gets its password; a site that asks for one gets none."""
        response = (
            {"response": "ProvideCredentials", "username": "tab", "password": self._lane.secret} if proxy else {"response": "CancelAuth"}
        )
        self._order("Fetch.continueWithAuth", requestId=request, authChallengeResponse=response)

    def _request(self, request: str, asked: dict[str, Any], kind: str, frame: str | None) -> None:
        url, method = str(asked["url"]), str(asked["method"])
        if url == GREETING and kind == "Document":
            return self._order("Fetch.continueRequest", requestId=request)
        if kind == "Document" and frame == self._frame and method == "GET":
            return self._document(request, url)
        if kind == "Document" and frame == self._frame:
            return self._stay(request)  # a form that was sent
        self._requests += 1
        if kind in _LOADED and method in _METHODS and self._requests <= self._settings.browser.max_requests:
            return self._order("Fetch.continueRequest", requestId=request)
        return self._refuse(request)

    def _refuse(self, request: str) -> None:
        self._order("Fetch.failRequest", requestId=request, errorReason="BlockedByClient")

    def _stay(self, request: str) -> None:
        """Leave the page where it is: `No Content` is the one answer that moves it nowhere."""
        self._order("Fetch.fulfillRequest", requestId=request, responseCode=204)

    def _document(self, request: str, url: str) -> None:
        """Give the page the document it asks for, if it is at hand; otherwise go and get it."""
        try:
            address = canonical(url)
        except ShieldError:
            return self._stay(request)
        if (document := self._documents.pop(address, None)) is not None:
            self._shown = document
            return self._fulfil(request, document)
        self._hops += 1
        if self._hops > self._settings.crawl.max_redirects:
            self._refusal = PageRedirectLoop()
            return self._stay(request)
        errand = asyncio.create_task(self._lead_on(request, address))
        self._errands.add(errand)
        errand.add_done_callback(self._came_back)
        return None

    def _came_back(self, errand: asyncio.Task[None]) -> None:
        self._errands.discard(errand)
        self._stirred.set()

    async def _lead_on(self, request: str, address: str) -> None:
        """The page leads on: fetch that document, past the crawl's gate, or stay."""
        with contextlib.suppress(BrowserGone):
            try:
                document = await self._follow(address)
            except ShieldError as error:
                self._refusal = error
                return self._stay(request)
            if document.content_type not in HTML_TYPES:
                return self._stay(request)
            if document.final_url == address:
                self._shown = document
                return self._fulfil(request, document)
            self._documents[document.final_url] = document  # the browser learns where its redirects ended, and asks for that
            headers = [{"name": "Location", "value": document.final_url}]
            self._order("Fetch.fulfillRequest", requestId=request, responseCode=302, responseHeaders=headers)
        return None

    def _fulfil(self, request: str, document: Fetched) -> None:
        kind = document.content_type or "text/html"
        headers = [{"name": "Content-Type", "value": f"{kind}; charset={document.charset}" if document.charset else kind}]
        body = base64.b64encode(document.body).decode("ascii")
        self._order("Fetch.fulfillRequest", requestId=request, responseCode=200, responseHeaders=headers, body=body)
