"""How a fleet is looked at: traces, health, synthetic calls."""

from __future__ import annotations

from pydantic import Field, SecretStr

from shield.settings.base import Duration, Group, seconds


class ProbeSettings(Group):
    url: str | None = None
    """The MCP endpoint that `shield probe` asks, for example http://127.0.0.1:8000/mcp; default: that of SHIELD_URL."""
    interval: Duration = seconds(30)
    """Time from the beginning of one synthetic tool call to that of the next."""
    timeout: Duration = seconds(10)
    """Longest synthetic tool call, connecting included."""
    knowledge_base: str = "default"
    """Where it looks something up; the credential must be allowed to read it."""
    api_key: SecretStr | None = None
    """Key or token that it shows; default: SHIELD_API_KEY."""


class TelemetrySettings(Group):
    otlp_endpoint: str | None = None
    """Where traces are sent (OTLP over HTTP), for example http://127.0.0.1:4318; needs the extra `otlp`."""
    sample: float = Field(1.0, ge=0, le=1)
    """Share of the traces begun here that are recorded; a caller's decision is kept."""


class HealthSettings(Group):
    max_lag: Duration = seconds(10)
    """How far the event loop may lag behind before /livez of the metrics port answers 503."""
    probe: Duration = seconds(10)
    """Pause between two looks whether PostgreSQL and Redis are there, for the metrics."""
