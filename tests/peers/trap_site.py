"""A site of some two hundred pages that plays every trick on a crawler; what must become of each is in the test's table.

    async with TrapSite() as site:
        CrawlSpec(url=f"{site.url}/", **site.spec), site.resolve, site.egress

Honest pages are few, because each costs a conversion; most of the site is what must not be fetched, or is cheap to refuse.
Names that need a resolver (`rebind.example`, `nowhere.example`) are answered by `site.resolve`.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from tests.peers import documents
from tests.peers.site import Site, page_html

DENIED, EXCLUDED, GONE, PICTURES = 60, 30, 12, 8
METADATA, TEN = "169.254.169.254", "10.0.0.7"


@dataclass
class TrapSite(Site):
    """The site; see the module."""

    pages: int = 9
    fan: int = 4
    closed_port: int = 0
    """Of this machine, where nobody listens."""
    asked: list[str] = field(default_factory=list)
    """Names that were resolved, in order."""

    @property
    def spec(self) -> dict[str, Any]:
        """How it is crawled: every trap lies within the scope."""
        hosts = [METADATA, TEN, "rebind.example", "nowhere.example", f"127.0.0.1:{self.closed_port}"]
        return {"max_pages": 71, "max_depth": 5, "allowed_domains": hosts, "exclude": ["/wiki/**?action=edit"]}

    @property
    def egress(self) -> list[str]:
        """What the guard may open."""
        return [self.allow, f"127.0.0.1/32:{self.closed_port}"]

    async def resolve(self, host: str, _: int) -> list[str]:
        """The names' addresses: one moves to a private network after its first answer, one has none."""
        self.asked.append(host)
        if host == "rebind.example":
            return ["127.0.0.1"] if self.asked.count(host) == 1 else [TEN]
        raise OSError("no such name")

    def link(self, path: str, host: str = "127.0.0.1") -> str:
        """An address of this port under another name."""
        return f"http://{host}:{self.port}{path}"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.closed_port = unused.getsockname()[1]
        self.robots = "User-agent: *\nDisallow: /private/\n"
        self._honest()
        self._redirects()
        self._heavy()
        self._endless()
        self._twins()
        self._statuses()
        self.put("/", page_html("The trap site", "Every link on this page leads to something else.", self._entrances()))
        return self

    def _entrances(self) -> list[str]:
        return [
            *("/page/1", "/loop/1", "/manual.pdf", "/notes.txt", "/app", "/blank", "/about"),
            *("/to/page", "/to/away", "/to/metadata", "/to/ten", "/to/rebind", "/ring/1", "/chain/0"),
            *("/huge", "/bomb", "/slow", "/broken"),
            *(f"http://{TEN}/", self.link("/", "nowhere.example"), f"http://127.0.0.1:{self.closed_port}/"),
            *("/status/401", "/status/403", "/status/404", "/status/410", "/status/429", "/status/500", "/status/503", "/patient"),
            *("/item?ref=mail", "/item?ref=feed", "/item", "/shop?sid=1", "/calendar?month=1", "/dig/"),
            *(f"/private/{n}" for n in range(1, DENIED + 1)),
            *(f"/wiki/Page{n}?action=edit" for n in range(1, EXCLUDED + 1)),
            *(f"/gone/{n}" for n in range(1, GONE + 1)),
            *(f"/files/picture{n}.png" for n in range(1, PICTURES + 1)),
            *("/files/all.zip", "/files/film.mp4", "http://user:secret@127.0.0.1/", "javascript:void(0)", "file:///etc/passwd"),
        ]

    def _honest(self) -> None:
        self.put("/loop/1", page_html("Loop one", "The first page leads to the second one.", ["/loop/2", "/loop/1", "/"]))
        self.put("/loop/2", page_html("Loop two", "The second page leads back to the first one.", ["/loop/1"]))
        self.put("/manual.pdf", documents.pdf(chapters=1), content_type="application/pdf")
        self.put("/notes.txt", "Plain notes about the lantern beside the harbour.", content_type="text/plain")
        self.put("/app", '<!doctype html><title>App</title><div id="root"></div><script src="/app.js"></script>')
        self.put("/blank", "<!doctype html><title>Nothing</title><body></body>")
        self.put("/about", '<link rel="canonical" href="/"><h1>About</h1><p>This page wrongly calls itself the start page.</p>')
        for n in range(1, PICTURES + 1):
            self.put(f"/files/picture{n}.png", b"\x89PNG\r\n\x1a\n" + bytes(1000), content_type="image/png")
        self.put("/files/all.zip", b"PK\x03\x04" + bytes(1000), content_type="application/zip")
        self.put("/files/film.mp4", bytes(1000), content_type="video/mp4")

    def _redirects(self) -> None:
        self.redirect("/to/page", "/page/1")
        self.redirect("/to/away", "https://elsewhere.example/")
        self.redirect("/to/metadata", f"http://{METADATA}/latest/meta-data/")
        self.redirect("/to/ten", f"http://{TEN}/admin")
        self.redirect("/to/rebind", self.link("/secret", "rebind.example"))
        self.redirect("/ring/1", "/ring/2")
        self.redirect("/ring/2", "/ring/1")
        for n in range(9):
            self.redirect(f"/chain/{n}", f"/chain/{n + 1}")

    def _heavy(self) -> None:
        self.put("/huge", b"<p>" + b"many words " * (10 * 1024 * 1024 // 11))
        self.bomb("/bomb", megabytes=64)
        self.endless("/slow")

        async def broken(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

        self.route("/broken", broken)

    def _endless(self) -> None:
        """A calendar that never ends, and a folder that holds itself."""
        for month in range(1, 13):
            text = f"The calendar of month {month} has no appointments at all."
            self.put(f"/calendar?month={month}", page_html("Calendar", text, [f"/calendar?month={month + 1}"]))
        for depth in range(1, 13):
            self.put("/" + "dig/" * depth, page_html("Dig", f"You stand {depth} fathoms below the ground.", ["dig/"]))

    def _twins(self) -> None:
        """One text under many addresses that all name one; and a shop that writes a new session into every link."""
        named = f'<link rel="canonical" href="{self.url}/item">'
        for path in ("/item", "/item?ref=mail", "/item?ref=feed"):
            self.put(path, f"{named}<h1>Item</h1><p>A brass compass with a worn leather strap.</p>")
        for session in range(1, 30):
            text = "<h1>Shop</h1><p>We sell ribbons, saddles and violins of every size.</p>"
            self.put(f"/shop?sid={session}", f'<link rel="canonical" href="/shop">{text}<a href="/shop?sid={session + 1}">On</a>')

    def _statuses(self) -> None:
        for status in (401, 403, 404, 410, 500, 503):
            self.put(f"/status/{status}", "no", status=status)
        self.throttle("/status/429", times=99, retry_after="0")
        self.throttle("/patient", times=2, retry_after="0", body="This page only wanted to be asked three times.")
