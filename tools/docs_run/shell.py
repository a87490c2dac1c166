"""One bash that runs the commands of a document in turn, each with a limit, and takes everything it started with it when it ends.

A command's text lies in a file that bash reads (`source`), so `cd`, `export` and variables last, as for a reader who types; its standard input is
empty and its output goes to a file. The exit code comes back over bash's own output. The shell leads a session of its own; its end is a SIGTERM to all
of it, and a SIGKILL for what is left after `GRACE` seconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from tools.docs_run.blocks import Block, Command, shows

_SCRIPT = """\
trap 'code=$?; trap - ERR; echo "line $((LINENO + {before})) ended with $code"; return $code' ERR
{text}
trap - ERR
"""
"""A script ends at its first command that fails, and says in which line of the document that stands."""
GRACE = 30.0
POLL = 0.1


class Failed(Exception):
    """A command that did not do what its document says."""

    def __init__(self, block: Block, command: Command, what: str, output: str) -> None:
        """Name document, line, command and what it printed."""
        printed = "\n".join(f"    {line}" for line in output.splitlines()[-60:]) or "    (no output)"
        super().__init__(f"{block.document}:{command.line}: {what}\n  $ {command.text}\n{printed}")


class Shell:
    """A bash in `folder`; a context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str], scratch: Path) -> None:
        """Start it. `scratch` is a directory for texts and outputs."""
        self._scratch = scratch
        self._number = 0
        scratch.mkdir(parents=True)
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._in, self._out = cast("IO[bytes]", self._bash.stdin), cast("IO[bytes]", self._bash.stdout)

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the shell and what it started."""
        self._signal(signal.SIGTERM)
        self._in.close()
        deadline = time.monotonic() + GRACE
        while self._alive() and time.monotonic() < deadline:
            time.sleep(POLL)
        self._signal(signal.SIGKILL)
        self._bash.wait(GRACE)
        self._out.close()

    def run(self, block: Block) -> None:
        """Run the block's commands.

        Raises:
            Failed: one ended with another exit code than it should, took too long, or printed something else.
        """
        for number, command in enumerate(block.commands, start=1):
            last = number == len(block.commands)
            if last and block.until:
                self._serve(block, command)
            else:
                self._finish(block, command, block.exit if last else 0)

    def _finish(self, block: Block, command: Command, expected: int) -> None:
        text, out = self._files(command)
        self._tell(f"source {text} </dev/null >{out} 2>&1; echo ended $?")
        code = self._answer(block.timeout)
        output = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
        if code is None:
            raise Failed(block, command, f"not ended after {block.timeout:.0f} s", output)
        if code != expected:
            raise Failed(block, command, f"exit code {code}, expected {expected}", output)
        if (missing := shows(output, command.output)) is not None:
            raise Failed(block, command, f"the document says that it prints `{missing}`", output)

    def _serve(self, block: Block, command: Command) -> None:
        text, out = self._files(command)
        self._tell(f"{{ source {text}; echo ended $?; }} </dev/null >{out} 2>&1 &")
        deadline = time.monotonic() + block.timeout
        while time.monotonic() < deadline:
            output = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
            if block.until in " ".join(output.split()):
                return
            if output.rpartition("\n")[0].rpartition("\n")[2].startswith("ended "):
                raise Failed(block, command, f"ended before it showed `{block.until}`", output)
            time.sleep(POLL)
        raise Failed(block, command, f"did not show `{block.until}` within {block.timeout:.0f} s", output)

    def _files(self, command: Command) -> tuple[str, Path]:
        self._number += 1
        text = self._scratch / f"{self._number}.sh"
        script = _SCRIPT.format(before=command.line - 2, text=command.text)
        text.write_text(script if command.script else command.text + "\n", encoding="utf-8")
        return shlex.quote(str(text)), self._scratch / f"{self._number}.out"

    def _tell(self, line: str) -> None:
        self._in.write(line.encode() + b"\n")
        self._in.flush()

    def _answer(self, limit: float) -> int | None:
        """The exit code, or None when the limit passes. A shell that a command ended (`exit`) answers with its own."""
        deadline = time.monotonic() + limit
        read = b""
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._out], [], [], left)
            if not ready:
                break
            piece = os.read(self._out.fileno(), 4096)
            if not piece:
                return self._bash.wait(GRACE)
            read += piece
            if read.endswith(b"\n") and (last := read.splitlines()[-1]).startswith(b"ended "):
                return int(last.split()[1])
        return None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, number)

    def _alive(self) -> bool:
        self._bash.poll()
        try:
            os.killpg(self._bash.pid, 0)
        except ProcessLookupError:
            return False
        return True
