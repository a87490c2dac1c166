"""Sending traces away: only where the extra `otlp` is installed and an endpoint is set.

Without either, the OpenTelemetry API records nothing and costs next to nothing, and a caller's trace is still carried on. No span
holds document text, query text, tokens or an exception's message.
"""

from __future__ import annotations

from collections.abc import Callable

from shield import __version__
from shield.errors import ConfigInvalid
from shield.settings import Settings


def _nothing() -> None:
    """There is nothing to flush."""


def start_export(settings: Settings, role: str) -> Callable[[], None]:
    """Send this process's spans to `telemetry.otlp_endpoint`, if there is one; returns what flushes and stops.

    Args:
        settings: the group `telemetry`.
        role: of the process: `up`, `api`, `mcp`, `worker`, `run-job`.

    Raises:
        ConfigInvalid: an endpoint is set and the packages are missing.
    """
    endpoint = settings.telemetry.otlp_endpoint
    if endpoint is None:
        return _nothing
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigInvalid(
            "SHIELD_TELEMETRY_OTLP_ENDPOINT needs the extra `otlp`: install hx-citadel-shield[otlp], or unset the variable."
        ) from error
    from opentelemetry import trace

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"shield-{role}", "service.version": __version__}),
        sampler=ParentBased(TraceIdRatioBased(settings.telemetry.sample)),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)
    return provider.shutdown
