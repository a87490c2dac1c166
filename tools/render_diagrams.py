"""`make diagrams-check`: every Mermaid diagram of the documents is drawn by Mermaid in Chromium; a syntax error fails.

`tools/run python tools/render_diagrams.py [--into DIRECTORY]` draws the blocks of docs/*.md and README.md, and with `--into` leaves a PNG of each to look at.
GitHub draws these blocks by itself, so pictures are not committed. Mermaid is one npm package, fetched by `npm pack` once and checked against the
digest below; it is a tool of this repository and no part of the product. Needs npm and Chromium (`make chromium`).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from shield.settings import load
from shield.sources.browser.find import find_chromium

ROOT = Path(__file__).resolve().parent.parent
VERSION = "12.3.0"
INTEGRITY = "sha512-4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw=="
WIDTH = 1000
"""Pixels; about what GitHub gives a page."""
FETCH, DRAW = 300, 120
"""Seconds that npm may take, and Chromium for each page."""

_PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:16px;background:#fff">
<div id="drawing"></div><pre id="verdict">nothing was drawn</pre>
<script>{mermaid}</script>
<script>
(async () => {{
  const verdict = document.getElementById("verdict");
  try {{
    mermaid.initialize({{startOnLoad: false, securityLevel: "strict"}});
    const drawn = await mermaid.render("diagram", {text});
    document.getElementById("drawing").innerHTML = drawn.svg;
    const box = document.querySelector("svg").getBoundingClientRect();
    verdict.textContent = JSON.stringify({{width: Math.ceil(box.width), height: Math.ceil(box.height)}});
  }} catch (error) {{ verdict.textContent = JSON.stringify({{error: String(error.message || error)}}); }}
  verdict.style.display = "none";
}})();
</script>
"""


@dataclass(frozen=True)
class Diagram:
    """A block of a document."""

    document: Path
    line: int
    text: str

    @property
    def name(self) -> str:
        """Of its picture."""
        return f"{self.document.stem.lower()}-{self.line}"


class Undrawn(Exception):
    """A diagram that Mermaid refused, or that Chromium did not draw."""


def diagrams(documents: Sequence[Path]) -> list[Diagram]:
    """The Mermaid blocks of the documents."""
    return [
        Diagram(document, (token.map or [0])[0] + 1, token.content)
        for document in documents
        for token in MarkdownIt("commonmark").parse(document.read_text(encoding="utf-8"))
        if token.type == "fence" and token.info.strip() == "mermaid"
    ]


def mermaid(cache: Path) -> str:
    """Mermaid's program text, from the cache or by npm; refused unless its digest is the one above."""
    archive = cache / f"mermaid-{VERSION}.tgz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["npm", "pack", "--silent", f"mermaid@{VERSION}", "--pack-destination", str(cache)],
                check=True,
                timeout=FETCH,
                stdout=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise SystemExit("npm is missing: on Debian or Ubuntu, apt-get install npm") from None
    content = archive.read_bytes()
    digest = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if digest != INTEGRITY:
        archive.unlink()
        raise SystemExit(f"mermaid@{VERSION} has the digest {digest}, not the pinned one; nothing of it was run")
    with tarfile.open(archive) as package:
        member = package.extractfile("package/dist/mermaid.min.js")
        if member is None:
            raise SystemExit("the package holds no mermaid.min.js")
        return member.read().decode().replace("</script", "<\\/script")


def draw(diagram: Diagram, program: str, chromium: str, into: Path | None) -> tuple[int, int]:
    """Draw it; return its size in pixels, and leave a picture if asked to.

    Raises:
        Undrawn: what Mermaid says.
    """
    with tempfile.TemporaryDirectory(prefix="shield-diagrams-") as name:
        page = Path(name) / "page.html"
        text = json.dumps(diagram.text).replace("</", "<\\/")
        page.write_text(_PAGE.format(mermaid=program, text=text), encoding="utf-8")
        dom = _chromium(chromium, name, page, [f"--window-size={WIDTH},1000", "--dump-dom"])
        found = re.search(r'<pre id="verdict"[^>]*>(.*?)</pre>', dom, re.DOTALL)
        try:
            verdict = json.loads(html.unescape(found[1])) if found else {"error": "Chromium showed no page"}
        except ValueError:
            verdict = {"error": found[1] if found else ""}
        if "error" in verdict:
            raise Undrawn(verdict["error"])
        width, height = int(verdict["width"]), int(verdict["height"])
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            size = f"--window-size={WIDTH},{height + 140}"  # a headless window keeps some of its height for itself
            _chromium(chromium, name, page, [size, "--force-device-scale-factor=1", f"--screenshot={into / diagram.name}.png"])
        return width, height


def _chromium(program: str, profile: str, page: Path, options: list[str]) -> str:
    """Open a page that needs no network in a browser of its own, which waits until its scripts have ended."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [
        program,
        "--headless",
        *sandbox,
        "--disable-gpu",
        f"--user-data-dir={profile}/profile",
        "--virtual-time-budget=60000",
        *options,
    ]
    ran = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=DRAW, check=False)
    if ran.returncode != 0:
        raise Undrawn(f"Chromium ended with {ran.returncode}: {ran.stderr[-500:]}")
    return ran.stdout


def main() -> int:
    """Draw all, say what was drawn and what was not."""
    parser = argparse.ArgumentParser(prog="make diagrams-check", description="Draw the documents' Mermaid diagrams.")
    parser.add_argument("--into", type=Path, help="directory for the pictures")
    parser.add_argument("documents", nargs="*", type=Path, help="default: README.md and docs/*.md")
    arguments = parser.parse_args()
    found = diagrams(arguments.documents or [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))])
    chromium = find_chromium(load().browser)
    if chromium is None:
        parser.error("Chromium is missing: make chromium")
    program = mermaid(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shield" / "diagrams")
    failed = 0
    for diagram in found:
        try:
            width, height = draw(diagram, program, str(chromium), arguments.into)
            print(f"{diagram.document.name}:{diagram.line}: {width} x {height}")
        except Undrawn as undrawn:
            failed += 1
            print(f"{diagram.document.name}:{diagram.line}: {undrawn}", file=sys.stderr)
    print(f"diagrams-check: {len(found)} drawn, {failed} failed" if failed else f"diagrams-check: {len(found)} drawn, ok")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
