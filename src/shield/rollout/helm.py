"""Helm as it is installed: it moves the weight, and takes everything back. Works with Helm 3 and 4."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shield.errors import RolloutRefused

_LAST_WORDS = 2000


@dataclass(frozen=True)
class Helm:
    """One release."""

    release: str
    namespace: str
    chart: str
    program: str = "helm"
    options: Sequence[str] = ()
    """More options for every command, such as `--kubeconfig` or `--kube-context`."""
    limit: float = 300
    """Seconds that a command may take, pods that become ready included."""

    async def revision(self) -> int:
        """The one that is deployed."""
        history = json.loads(await self._run("history", self.release, "--output", "json", "--max", "1"))
        return int(history[-1]["revision"])

    async def values(self) -> dict[str, Any]:
        """All values of the release, the chart's included."""
        return dict(json.loads(await self._run("get", "values", self.release, "--all", "--output", "json")))

    async def set(self, values: Mapping[str, str | int], why: str) -> None:
        """Change these values and keep the others; returns when what they change is ready. `why` stands in the release's history."""
        changes = [word for name, value in values.items() for word in (_flag(value), f"{name}={value}")]
        waiting = ("--wait", "--timeout", f"{self.limit:.0f}s", "--description", why)
        await self._run("upgrade", self.release, self.chart, "--reuse-values", *changes, *waiting)

    async def roll_back(self, revision: int) -> None:
        """Back to a revision."""
        await self._run("rollback", self.release, str(revision), "--wait", "--timeout", f"{self.limit:.0f}s")

    async def _run(self, *arguments: str) -> str:
        command = [self.program, *arguments, "--namespace", self.namespace, *self.options]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise RolloutRefused(f"{self.program} cannot be run: {error.strerror}.") from error
        try:
            async with asyncio.timeout(self.limit + 30):
                out, err = await process.communicate()
        except TimeoutError:
            raise RolloutRefused(f"helm {arguments[0]} took longer than {self.limit + 30:.0f} s.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RolloutRefused(f"helm {arguments[0]}: {err.decode(errors='replace').strip()[-_LAST_WORDS:]}")
        return out.decode()


def _flag(value: str | int) -> str:
    return "--set" if isinstance(value, int) else "--set-string"
