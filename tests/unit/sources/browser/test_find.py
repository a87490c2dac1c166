"""Which Chromium is taken, and when none is."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield.settings import BrowserSettings
from shield.sources.browser.find import find_chromium


def program(directory: Path, name: str, mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(mode)
    return path


def test_the_one_on_the_path_is_taken_chromium_before_chrome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium(BrowserSettings()) is None
    chrome = program(tmp_path, "google-chrome")
    assert find_chromium(BrowserSettings()) == chrome
    chromium = program(tmp_path, "chromium")
    assert find_chromium(BrowserSettings()) == chromium


def test_the_one_that_is_named_wins_or_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "chromium")
    mine = program(tmp_path, "mine")
    assert find_chromium(BrowserSettings(executable=mine)) == mine
    assert find_chromium(BrowserSettings(executable=tmp_path / "missing")) is None
    assert find_chromium(BrowserSettings(executable=program(tmp_path, "plain", 0o644))) is None
    assert find_chromium(BrowserSettings(executable=tmp_path)) is None


def test_none_is_used_where_it_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "chromium")
    assert find_chromium(BrowserSettings(enabled=False)) is None
