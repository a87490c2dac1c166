"""Keys that are asked about at an orchestrator: one that does not answer is left alone, one that is busy is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from shield.auth import keys
from shield.auth.hop import HopTokens
from shield.errors import IdentityUnavailable
from shield.resilience import Breakers
from shield.service.introspection import Introspection
from shield.settings import BreakerSettings, load

SECRET = "s" * 48
THRESHOLD = 3


class Orchestrator:
    """Answers with a status, or not at all; counts who asks."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.status is None:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(self.status, json={"active": True, "principal": "somebody", "scopes": ["kb:read"]})


@pytest.fixture
def breakers() -> Breakers:
    return Breakers(BreakerSettings(threshold=THRESHOLD, pause=timedelta(seconds=30)))


@pytest.fixture
def orchestrator() -> Orchestrator:
    return Orchestrator()


@pytest.fixture
async def asking(orchestrator: Orchestrator, breakers: Breakers) -> AsyncIterator[Introspection]:
    settings = load(auth={"mode": "api-key", "hop_secret": SECRET})
    async with httpx.AsyncClient(transport=httpx.MockTransport(orchestrator)) as client:
        yield Introspection("http://127.0.0.1:1", HopTokens(SECRET, settings.auth.clock_skew), settings, client, breakers=breakers)


async def refused(asking: Introspection, times: int) -> list[float]:
    waits = []
    for _ in range(times):
        with pytest.raises(IdentityUnavailable) as refusal:
            await asking.principal(keys.mint().secret)
        assert refusal.value.retry_after
        waits.append(refusal.value.retry_after)
    return waits


async def test_one_that_does_not_answer_is_left_alone_for_a_while(
    asking: Introspection, orchestrator: Orchestrator, breakers: Breakers
) -> None:
    waits = await refused(asking, THRESHOLD + 3)
    assert orchestrator.asked == THRESHOLD
    assert breakers.states()["orchestrator"] == 2
    assert waits[-1] > waits[0]  # as long as the circuit stays open


@pytest.mark.parametrize("status", [429, 503])
async def test_one_that_is_busy_is_asked_again(asking: Introspection, orchestrator: Orchestrator, breakers: Breakers, status: int) -> None:
    orchestrator.status = status
    await refused(asking, THRESHOLD + 3)
    assert orchestrator.asked == THRESHOLD + 3
    orchestrator.status = 200
    assert (await asking.principal(keys.mint().secret)).name == "somebody"


async def test_one_that_fails_is_left_alone_too(asking: Introspection, orchestrator: Orchestrator, breakers: Breakers) -> None:
    orchestrator.status = 500
    await refused(asking, THRESHOLD)
    assert breakers.states()["orchestrator"] == 2
