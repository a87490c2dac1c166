"""Schemathesis reads the OpenAPI document and tries to prove it wrong: types, limits, statuses, headers, and POST to GET chains.

The application runs over the stand-in, so every contradiction is the API layer's own. Few examples, always the same ones.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.python import asgi

from shield.api.app import create_app
from shield.settings import load
from tests.unit.stand_in import StandIn

FEW = settings(max_examples=4, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "generation": {"allow-x00": False},  # NUL is refused everywhere; a schema cannot say so
        "checks": {"use_after_free": {"enabled": False}, "ensure_resource_availability": {"enabled": False}},  # the stand-in has no state
    }
)


schema: Any = schemathesis.openapi.from_asgi("/openapi.json", create_app(StandIn(), load(allowed_hosts=asgi.HOST)), config=CONFIG)


@schema.parametrize()
@FEW
def test_no_request_contradicts_the_document(case: Any) -> None:
    case.call_and_validate()


def test_no_chain_of_requests_contradicts_the_document() -> None:
    machine = schema.as_state_machine()
    called: set[str] = set()

    class Chains(machine):  # type: ignore[misc,valid-type]
        def validate_response(self, response: Any, case: Any, **kwargs: Any) -> None:
            called.add(case.operation.label)
            super().validate_response(response, case, **kwargs)

    Chains.run(settings=settings(FEW, max_examples=8, stateful_step_count=5))
    assert called & {"GET /jobs/{job_id}", "GET /jobs/{job_id}/events", "POST /jobs/{job_id}/cancel"}  # where the links of a 202 lead
