"""What the doctor says about the browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield.app.doctor import _browser
from shield.settings import load


def test_a_browser_that_is_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    finding = _browser(load())
    assert (finding.what, finding.state) == ("Browser", "ok")
    assert str(program) in finding.detail


def test_one_that_is_missing_or_switched_off_is_optional_and_one_that_is_misnamed_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = _browser(load())
    assert (missing.state, "apt-get install" in missing.remedy) == ("optional", True)
    assert _browser(load(browser={"enabled": False, "executable": tmp_path / "x"})).state == "optional"
    assert _browser(load(browser={"executable": tmp_path / "x"})).state == "broken"
