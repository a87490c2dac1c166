"""`shield smoke` against a whole Shield, with and without a key that it knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastmcp import Client

from shield.app.smoke import Smoke, ToolRefused, mcp_tools
from shield.cli.app import run
from tests.integration.conftest import Running


@pytest.mark.timeout(180)  # a whole Shield starts, and works, on a machine that may be busy
async def test_a_whole_shield_passes_and_keeps_nothing(running: Running) -> None:
    said: list[str] = []
    async with running() as app:
        url = f"{app.info.url}/mcp"
        await Smoke(mcp_tools(url, None), said.append).run(120)
        async with Client(url) as client:
            listed = (await client.call_tool("list_documents", {})).structured_content or {}
        assert listed["documents"] == []
        with pytest.raises(ToolRefused, match=r"\[kb\.not_found\]"):
            await mcp_tools(url, None)("list_documents", {"knowledge_base": "unknown"})
    assert said[-1] == "deleted, and found no more"


def test_the_command_says_what_failed_and_exits_with_75(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("shk_nobody\n")
    assert run(["smoke", "http://127.0.0.1:9/mcp", "--within", "1", "--key-file", str(key)]) == 75
    assert "FAILED: not done within 1 s" in capsys.readouterr().out


def test_a_key_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["smoke", "http://127.0.0.1:9/mcp", "--key-file", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
