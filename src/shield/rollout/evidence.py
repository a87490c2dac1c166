"""What Prometheus says of both tracks: the records of the rule group `shield-canary` (monitoring/slo_config.yml), four queries a look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Self

import httpx

from shield.errors import RolloutBlind
from shield.rollout.judge import Track

CALLS: Final = "shield_track:tool_calls:rate1m"
ERRORS: Final = "shield_track:tool_errors:ratio_rate1m"
P95: Final = "shield_track:tool_latency_p95:rate1m"
EMPTY: Final = "shield_track:tool_empty:ratio_rate1m"


class Prometheus:
    """Asks one Prometheus about one namespace."""

    def __init__(self, url: str, namespace: str, *, limit: float = 10) -> None:
        """`limit`: seconds for one query."""
        self._namespace = namespace
        self._client = httpx.AsyncClient(base_url=url, timeout=limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def look(self) -> tuple[Track, Track]:
        """The stable track and the canary, as of now.

        Raises:
            RolloutBlind: Prometheus does not answer, or its answer is none.
        """
        calls, errors, p95, empty = [await self._ask(record) for record in (CALLS, ERRORS, P95, EMPTY)]

        def track(name: str) -> Track:
            def one(found: list[tuple[Mapping[str, str], float]]) -> float | None:
                return next((value for labels, value in found if labels.get("track") == name), None)

            slow = {labels["class"]: value for labels, value in p95 if labels.get("track") == name and "class" in labels}
            return Track(one(calls), one(errors), slow, one(empty))

        return track("stable"), track("canary")

    async def _ask(self, record: str) -> list[tuple[Mapping[str, str], float]]:
        query = f'{record}{{namespace="{self._namespace}"}}'
        try:
            answer = await self._client.get("/api/v1/query", params={"query": query})
            answer.raise_for_status()
            found = _values(answer.json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise RolloutBlind(f"Prometheus does not say {record}: {str(error) or type(error).__name__}") from error
        return [(labels, value) for labels, value in found if math.isfinite(value)]


def _values(body: Any) -> list[tuple[Mapping[str, str], float]]:
    return [(item["metric"], float(item["value"][1])) for item in body["data"]["result"]]
