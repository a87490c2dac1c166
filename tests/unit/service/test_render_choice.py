"""How a crawl's pages are read is decided at intake, by what the workers can do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shield.errors import PageNeedsBrowser
from shield.service.intake import IntakeCases


def intake(*offers: str) -> Any:
    async def offered() -> frozenset[str]:
        return frozenset(offers)

    return cast("Any", SimpleNamespace(parts=SimpleNamespace(offers=offered)))


@pytest.mark.parametrize(
    ("asked", "offers", "chosen"),
    [
        (None, ("browser",), "auto"),
        (None, (), "http"),
        (None, ("ocr",), "http"),
        ("http", ("browser",), "http"),
        ("auto", (), "auto"),
        ("browser", ("browser", "ocr"), "browser"),
    ],
)
async def test_who_names_nothing_gets_what_the_workers_can_do(asked: str | None, offers: tuple[str, ...], chosen: str) -> None:
    assert await IntakeCases._render(intake(*offers), asked) == chosen


async def test_a_crawl_that_nobody_could_run_is_refused_at_once() -> None:
    with pytest.raises(PageNeedsBrowser):
        await IntakeCases._render(intake("ocr"), "browser")
