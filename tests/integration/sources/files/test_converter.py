"""The converting processes: what a child may see and take, and that nothing outlives its parent.

Most tests use plain text and CSV, whose child needs no heavy library and starts in a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from shield.errors import (
    ConversionCrashed,
    ConversionOutOfMemory,
    ConversionTimeout,
    DocumentBomb,
    DocumentCorrupt,
    DocumentEmpty,
    DocumentTooLarge,
    DocumentTypeMismatch,
    PageEmpty,
    ShieldError,
)
from shield.settings import FileSettings
from shield.sources.files.convert import Converter
from tests.peers import documents

SLOW = documents.slow_csv(8_000_000)
"""Takes many seconds once the limits below let it in."""
ROOMY: dict[str, Any] = {"max_cells": 10**9, "max_csv_rows": 10**9}


@contextlib.asynccontextmanager
async def converter(scratch: Path | None = None, **settings: Any) -> AsyncIterator[Converter]:
    async with Converter(FileSettings(**(ROOMY | settings)), scratch) as made:
        yield made


async def eventually(condition: Callable[[], Any], limit: float = 20.0) -> Any:
    """Poll for something that another process brings about."""
    async with asyncio.timeout(limit):
        while not (value := condition()):
            await asyncio.sleep(0.02)
    return value


def hosts() -> list[psutil.Process]:
    """Host processes below this one."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ended while we looked
            if "shield.sources.files.host" in process.cmdline():
                found.append(process)
    return found


def child() -> psutil.Process | None:
    """The converting child, once there is one."""
    with contextlib.suppress(psutil.Error):
        return next((process for host in hosts() for process in host.children()), None)
    return None


def gone(*pids: int) -> bool:
    """Whether none of these runs."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


class TestIsolation:
    async def test_a_child_sees_no_secret_no_descriptor_and_no_network(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SHIELD_PLANTED_SECRET", "hunter2")
        with (tmp_path / "open").open("w") as held:
            os.set_inheritable(held.fileno(), True)
            async with converter() as made:
                seen = await made.inspect()
                environment = Path(f"/proc/{hosts()[0].pid}/environ").read_bytes()
        assert set(seen["environment"]) == {"HOME", "TMPDIR", "CRAWL4_AI_BASE_DIRECTORY"}
        assert b"hunter2" not in environment
        assert set(seen["descriptors"]) <= {0, 1, 2, 3, 4}  # 4 lists the others
        if os.geteuid() == 0:  # others may be refused a namespace of their own
            assert seen["interfaces"] in ([], ["lo"])
        assert seen["session"]
        assert seen["no_new_privileges"]
        assert seen["memory"] == FileSettings().convert_memory
        assert not Path(seen["home"]).exists()

    async def test_temporary_files_go_below_the_scratch_directory_and_leftovers_are_swept(self, data_dir: Path) -> None:
        scratch = data_dir / "convert"
        (scratch / "convert-left-behind").mkdir(parents=True)
        async with converter(scratch) as made:
            assert list(scratch.iterdir()) == []
            assert (await made.inspect())["home"].startswith(str(scratch))
        assert list(scratch.iterdir()) == []


class TestLimits:
    async def test_a_conversion_that_takes_too_long_is_killed_and_the_next_one_works(self) -> None:
        async with converter(convert_timeout=0.5) as made:
            with pytest.raises(ConversionTimeout):
                await made.convert(SLOW, "a.csv")
            assert hosts() == []
            assert (await made.convert(b"fine", "a.txt")).text == "fine"

    async def test_a_conversion_that_needs_too_much_memory_ends(self) -> None:
        async with converter(convert_memory=200 * 1024 * 1024) as made:
            with pytest.raises(ConversionOutOfMemory):
                await made.convert(SLOW, "a.csv")
            assert (await made.convert(b"fine", "a.txt")).text == "fine"

    async def test_a_file_that_is_too_large_or_empty_starts_no_process(self) -> None:
        async with converter(max_bytes=10) as made:
            with pytest.raises(DocumentTooLarge):
                await made.convert(b"x" * 11, "a.txt")
            with pytest.raises(DocumentEmpty):
                await made.convert(b"", "a.txt")
            assert hosts() == []

    @pytest.mark.parametrize(("number", "error"), [(signal.SIGSEGV, ConversionCrashed), (signal.SIGKILL, ConversionOutOfMemory)])
    async def test_a_child_that_dies_is_an_outcome(self, number: signal.Signals, error: type[ShieldError]) -> None:
        async with converter() as made:
            running = asyncio.create_task(made.convert(SLOW, "a.csv"))
            (await eventually(child)).send_signal(number)
            with pytest.raises(error):
                await running
            assert (await made.convert(b"fine", "a.txt")).text == "fine"

    async def test_a_host_that_dies_is_replaced(self) -> None:
        async with converter() as made:
            running = asyncio.create_task(made.convert(SLOW, "a.csv"))
            working = await eventually(child)
            hosts()[0].kill()
            with pytest.raises(ConversionCrashed):
                await running
            await eventually(lambda: gone(working.pid))
            assert (await made.convert(b"fine", "a.txt")).text == "fine"

    async def test_a_host_that_does_not_start_in_time_is_given_up(self) -> None:
        async with converter(convert_start=0.001) as made:
            with pytest.raises(ConversionCrashed):
                await made.convert(b"fine", "a.txt")
            assert hosts() == []


class TestLife:
    async def test_cancelling_the_caller_kills_the_child(self) -> None:
        async with converter() as made:
            running = asyncio.create_task(made.convert(SLOW, "a.csv"))
            working = await eventually(child)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert gone(working.pid)
            assert (await made.convert(b"fine", "a.txt")).text == "fine"

    async def test_callers_at_once_get_each_their_own(self) -> None:
        async with converter() as made:
            texts = [f"document number {number}" for number in range(6)]
            found = await asyncio.gather(*(made.convert(text.encode(), "a.txt") for text in texts))
            assert [converted.text for converted in found] == texts
            assert len(hosts()) == 1

    async def test_several_lanes_convert_at_once_and_let_their_idle_hosts_go_when_told(self) -> None:
        async with Converter(FileSettings(), lanes=2) as made:
            found = await asyncio.gather(*(made.convert(f"document {number}".encode(), "a.txt") for number in range(4)))
            assert [converted.text for converted in found] == [f"document {number}" for number in range(4)]
            assert len(hosts()) == 2
            await made.recycle()
            assert hosts() == []
            working = asyncio.create_task(made.convert(b"again", "a.txt"))
            await eventually(hosts)
            await made.recycle()  # this one is at work
            assert (await working).text == "again"

    async def test_an_idle_host_stops_and_starts_again(self) -> None:
        async with converter(convert_idle=0.1) as made:
            await made.convert(b"one", "a.txt")
            await eventually(lambda: not hosts())
            assert (await made.convert(b"two", "a.txt")).text == "two"

    async def test_closing_ends_what_runs_and_what_waits(self) -> None:
        async with converter() as made:
            running = [asyncio.create_task(made.convert(SLOW, "a.csv")) for _ in range(2)]
            working = await eventually(child)
            await made.close()
            for task in running:
                with pytest.raises(ConversionCrashed):
                    await task
            assert hosts() == []
            await eventually(lambda: gone(working.pid))

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    async def test_nothing_outlives_a_killed_server(self, number: signal.Signals, tmp_path: Path) -> None:
        script = (
            "import asyncio, sys\n"
            "from pathlib import Path\n"
            "from shield.settings import FileSettings\n"
            "from shield.sources.files.convert import Converter\n"
            "async def main():\n"
            "    made = Converter(FileSettings(max_cells=10**9, max_csv_rows=10**9), Path(sys.argv[1]))\n"
            "    await made.convert(b'a,b,c,d,e,f,g,h,i,j\\n' * 800_000, 'a.csv')\n"
            "asyncio.run(main())\n"
        )
        server = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "scratch")])
        try:
            tree = await eventually(lambda: below if len(below := psutil.Process(server.pid).children(recursive=True)) == 2 else None)
            server.send_signal(number)
            server.wait(10)
            await eventually(lambda: gone(*(process.pid for process in tree)))
        finally:
            server.kill()


class TestWithLibraries:
    """Through the whole path, with Docling and Crawl4AI in the child; one start for all files."""

    async def test_files_and_pages_of_all_kinds_come_through(self) -> None:
        async with converter(max_cells=1_000_000) as made:
            manual = await made.convert(documents.pdf(), "manual.pdf", "application/pdf")
            assert (manual.title, manual.pages, manual.blocks[0].page) == ("Pump handbook", 2, 1)
            assert (await made.convert(documents.docx(), "a.docx")).title == "The handbook"
            assert (await made.convert(documents.pptx(), "a.pptx")).pages == 3
            assert "Rotor" in (await made.convert(documents.xlsx(), "a.xlsx")).text
            assert (await made.convert(documents.MARKDOWN, "a.md")).title == "From the front"
            assert (await made.convert(documents.HTML, "a.html")).title == "Valve guide"
            with pytest.raises(DocumentBomb):
                await made.convert(documents.xlsx(cell="XFD1048576"), "a.xlsx")
            with pytest.raises(DocumentBomb):
                await made.convert(documents.deep_html(20_000), "a.html")
            with pytest.raises(DocumentTypeMismatch):
                await made.convert(documents.docx(), "a.pdf")
            with pytest.raises(DocumentCorrupt):
                await made.convert(documents.pdf()[:3000], "a.pdf")
            with pytest.raises(ConversionCrashed) as caught:
                await made.convert(documents.rezip(documents.docx(), {"word/document.xml": lambda _: b"<nothing/>"}), "a.docx")
            assert caught.value.details == {"cause": "RuntimeError"}

    async def test_web_pages_come_through_beside_a_long_file(self) -> None:
        async with converter() as made:
            slow = asyncio.create_task(made.convert(SLOW, "a.csv"))
            page = await made.extract_html(documents.HTML, "https://site.example/docs/")
            assert page.links == ("https://site.example/x",)
            assert [block.text for block in page.blocks][:2] == ["Valves", "Some bold, and a link."]
            with pytest.raises(PageEmpty):
                await made.extract_html(b"", "https://site.example/")
            slow.cancel()
