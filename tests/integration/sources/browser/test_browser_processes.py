"""The browser's processes: what they may hold, and that none outlives its purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from shield.errors import PageRenderFailed
from tests.integration.sources.browser.conftest import browser_settings, chromium, staged
from tests.integration.sources.browser.conftest import browsers as all_browsers

_OTHERS: set[int] = set()
HOG = "<p>Greedy</p><script>const kept = []; setInterval(() => kept.push(new Uint8Array(2e7).fill(7)), 1); fetch('/never')</script>"


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """Leave out the browsers that other tests of this process keep."""
    _OTHERS.update(process.pid for process in all_browsers())
    yield
    _OTHERS.clear()


def browsers(above: int | None = None) -> list[psutil.Process]:
    """All processes of the browsers that the test at hand has started."""
    return [process for process in all_browsers(above) if process.pid not in _OTHERS]


def main_process() -> psutil.Process:
    """Chromium's own first process."""
    return next(process for process in browsers() if "--remote-debugging-pipe" in process.cmdline())


async def until_gone(processes: list[psutil.Process], limit: float = 20) -> None:
    async with asyncio.timeout(limit):
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            await asyncio.sleep(0.02)


async def test_it_holds_no_secret_and_no_root_and_leaves_nothing_after_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELD_POSTGRES_DSN", "postgresql://secret@nowhere/x")
    async with staged(idle=0.2) as stage:
        async with stage.renderer._shared():
            assert "hello" in await stage.show("<p>hello</p>")
            everyone, browser = browsers(), main_process()
            for process in everyone:
                with contextlib.suppress(psutil.Error):
                    assert "secret" not in str(process.environ())
            home = Path(browser.environ()["HOME"])
            assert home.name.startswith("shield-browser-")
            assert home.stat().st_mode & 0o077 == 0
            assert 0 not in {browser.uids().real, browser.uids().effective}
        await until_gone(everyone)
        assert not home.exists()


async def test_a_fresh_one_takes_over_after_so_many_pages() -> None:
    async with staged(max_pages=1) as stage:
        await stage.show("<p>one</p>")
        first = main_process()
        await stage.show("<p>two</p>")
        await until_gone([first])
        assert main_process().pid != first.pid
        await stage.renderer.recycle()
        assert browsers() == []


async def test_a_greedy_page_takes_only_itself_down() -> None:
    async with staged(memory=600_000_000, settle=30) as stage:

        async def never(_: web.Request) -> web.Response:
            await asyncio.sleep(60)
            return web.Response()

        stage.site.route("/never", never)
        with pytest.raises(PageRenderFailed):
            await stage.show(HOG)
        browser = main_process()
        assert "next" in await stage.show("<p>next</p>")
        assert main_process().pid == browser.pid


async def test_a_page_that_was_shown_when_it_was_killed_is_shown_again() -> None:
    async with staged() as stage:

        async def late(_: web.Request) -> web.Response:
            await asyncio.sleep(0 if len(stage.site.log) > 1 else 30)
            return web.Response(text="late")

        stage.site.route("/late", late)
        page = "<p id=text></p><script>fetch('/late').then(r => r.text()).then(t => text.textContent = 'came ' + t)</script>"
        showing = asyncio.create_task(stage.show(page))
        await stage.site.visited(1, limit=30)
        main_process().kill()
        assert "came late" in await showing


async def test_nothing_is_left_of_it_when_its_parent_is_killed() -> None:
    program = (
        "import asyncio, pathlib\n"
        "from tests.integration.sources.browser.conftest import staged\n"
        "async def main():\n"
        "    async with staged() as stage:\n"
        "        await stage.show('<p>hello</p>')\n"
        "        print('shown', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(40):
            while b"shown" not in (line := await parent.stdout.readline()):
                assert line
        family = browsers(parent.pid)
        home = Path(next(process for process in family if "--remote-debugging-pipe" in process.cmdline()).environ()["HOME"])
        os.kill(parent.pid, signal.SIGKILL)
        await until_gone(family)
        async with asyncio.timeout(10):
            while home.exists():
                await asyncio.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()
        await parent.wait()


async def test_where_its_own_sandbox_does_not_work_it_says_so_or_refuses(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    picky = data_dir / "picky-chromium"
    settings = browser_settings()
    picky.write_text(f'#!/bin/sh\ncase "$*" in *--no-sandbox*) exec {chromium(settings)} "$@";; esac\nexit 1\n', encoding="utf-8")
    picky.chmod(0o755)
    async with staged(executable=str(picky)) as stage:
        assert "hello" in await stage.show("<p>hello</p>")
        async with stage.renderer._shared() as browser:
            assert browser.sandboxed is False
    async with staged(executable=str(picky), sandbox="required") as stage:
        with pytest.raises(PageRenderFailed):
            await stage.show("<p>hello</p>")
    assert browsers() == []


async def test_a_program_that_is_no_browser_is_an_outcome_not_a_hang(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    silent = data_dir / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    silent.chmod(0o755)
    async with staged(executable=str(silent), start=0.5) as stage:
        with pytest.raises(PageRenderFailed):
            await stage.show("<p>hello</p>")
    assert browsers() == []
