"""Circuit breakers: a dependency that keeps failing is left alone for a while, at no cost to the callers.

purgatory keeps the state (closed, opened, half-opened) and counts failures in a row; this wrapper adds what it lacks.
An open circuit refuses with `CircuitOpen` in microseconds and keeps nothing of the refused call (purgatory would raise one shared
exception whose traceback grows for ever). After the pause exactly one probe goes out, everybody else is still refused. A call
belongs to the *period* in which it began; when the state has changed since, its end decides nothing. Time is monotonic, so a
corrected wall clock neither holds a circuit open nor closes it.

What the end of a call means:

| how it ended | meaning |
|---|---|
| result; an error of the caller's making or one that no retry mends (`DependencyRejected`, ...); an error of another service | an answer: success |
| cancelled; `DependencyThrottled`, `QueueFull`, `Overloaded` | neutral: neither success nor failure |
| `DependencyMisconfigured` | opens at once: no retry can help |
| anything else | a failure |

A change of state is logged once, a misconfigured dependency as an error of its own, which `shield_dependency_misconfigured` shows
until the dependency has answered again.

Limits: state is per process, a time limit belongs inside the call, and nothing here waits. PostgreSQL and Redis have no
breaker (see `retry.py`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from shield.errors import CircuitOpen, DependencyMisconfigured, DependencyThrottled, Fault, Overloaded, QueueFull, ShieldError
from shield.settings import BreakerSettings

if TYPE_CHECKING:
    from purgatory.domain.model import Context

T = TypeVar("T")
_TRACER = trace.get_tracer("shield")

log = structlog.get_logger(__name__)

SERVICES = ("orchestrator", "qdrant", "embedding", "shadow", "llm")
"""The dependencies behind a breaker; one breaker each, never one per address."""

_CLOSED, _OPEN = "closed", "opened"
_PROBE_PAUSE = 1.0
"""Seconds advised to callers who meet a half-open circuit whose probe is out."""


class _Meaning(Enum):
    SUCCESS = "success"
    NEUTRAL = "neutral"
    FAILURE = "failure"
    FATAL = "fatal"


def _meaning(service: str, error: Exception) -> _Meaning:
    if not isinstance(error, ShieldError):
        return _Meaning.FAILURE
    if error.details.get("service", service) != service:
        return _Meaning.SUCCESS  # this service answered, and told of another one's trouble
    if isinstance(error, DependencyMisconfigured):
        return _Meaning.FATAL
    if isinstance(error, DependencyThrottled | QueueFull | Overloaded):
        return _Meaning.NEUTRAL
    if not error.retryable or error.fault is Fault.CALLER:
        return _Meaning.SUCCESS
    return _Meaning.FAILURE


class _Circuit:
    """One service's breaker; all methods are synchronous, hence atomic in the event loop."""

    def __init__(self, service: str, threshold: int, pause: float, clock: Callable[[], float]) -> None:
        from purgatory.domain.model import Context

        self._service = service
        self._pause = pause
        self._clock = clock
        self._context: Context = Context(service, threshold, pause)
        self._opened_at = 0.0
        self._period = 0
        self._probing = False
        self.misconfigured = False
        """Whether the last answer that said anything about it refused our credential or model."""

    def admit(self) -> int:
        """Let a call begin; returns its period.

        Raises:
            CircuitOpen: the circuit is open, or half-open with its probe out.
        """
        if self._context.state == _CLOSED:
            return self._period
        if self._context.state == _OPEN:
            if (wait := self._remaining()) > 0:
                raise self._refusal(wait)
            self._half_open()
        if self._probing:
            raise self._refusal(min(_PROBE_PAUSE, self._pause))
        self._probing = True
        return self._period

    def settle(self, period: int, error: Exception | None, meaning: _Meaning) -> None:
        """Take in how an admitted call ended."""
        if period != self._period:
            return
        self._probing = False
        before = self._context.state
        if meaning is _Meaning.FATAL:
            self._open()
        elif meaning is _Meaning.FAILURE and error is not None:
            self._context.handle_exception(error)
        elif meaning is _Meaning.SUCCESS:
            self._context.handle_end_request()
        self._context.messages.clear()  # events for purgatory's listeners, of which there are none
        if meaning in {_Meaning.FATAL, _Meaning.SUCCESS}:
            self.misconfigured = meaning is _Meaning.FATAL
        if self._context.state != before:
            self._period += 1
            self._opened_at = self._clock()
            self._tell(error)

    def level(self) -> int:
        """0 closed, 1 half-open (the next call, or one that is out, is the probe), 2 open."""
        if self._context.state == _CLOSED:
            return 0
        return 2 if self._context.state == _OPEN and self._remaining() > 0 else 1

    def _tell(self, error: Exception | None) -> None:
        """Log a change of state: rare, and what an operator looks for first."""
        if self._context.state == _CLOSED:
            log.info("circuit.closed", service=self._service)
        elif self.misconfigured:
            message = error.message if isinstance(error, ShieldError) else ""
            log.error("dependency.misconfigured", service=self._service, message=message, retry_in=self._pause)
        else:
            code = error.code if isinstance(error, ShieldError) else type(error).__name__
            log.warning("circuit.opened", service=self._service, error=code, retry_in=self._pause)

    def _remaining(self) -> float:
        return self._opened_at + self._pause - self._clock()

    def _refusal(self, wait: float) -> CircuitOpen:
        return CircuitOpen(f"Calls to `{self._service}` are paused because it keeps failing.", retry_after=wait, service=self._service)

    def _half_open(self) -> None:
        from purgatory.domain.model import HalfOpenedState

        self._context.set_state(HalfOpenedState())
        self._period += 1

    def _open(self) -> None:
        from purgatory.domain.model import OpenedState

        self._context.set_state(OpenedState(self._service))


Observed = Callable[[str, float | None, Exception | None], None]
"""Told of each call: service, seconds (None: refused before it began), and the error it ended with; must not fail."""


def _nobody(_service: str, _seconds: float | None, _error: Exception | None) -> None:
    """Nobody is told."""


class Breakers:
    """The circuit breakers of a process, one for each of `services`; `observed` counts the calls that were not cancelled."""

    def __init__(
        self,
        settings: BreakerSettings,
        clock: Callable[[], float] = time.monotonic,
        services: Sequence[str] = SERVICES,
        *,
        observed: Observed = _nobody,
    ) -> None:
        self._clock = clock
        self._observed = observed
        pause = settings.pause.total_seconds()
        self._circuits = {name: _Circuit(name, settings.threshold, pause, clock) for name in services}

    async def call(self, service: str, fn: Callable[[], Awaitable[T]]) -> T:
        """Call `fn` unless the circuit of `service` is open. Time limits belong inside `fn`.

        Raises:
            CircuitOpen: the circuit is open; `retry_after` says for how long. `fn` was not called.
            Exception: whatever `fn` raises, unchanged.
        """
        circuit = self._circuits[service]
        try:
            period = circuit.admit()
        except CircuitOpen as refused:
            self._observed(service, None, refused)
            raise
        began = self._clock()
        error: Exception | None = None
        meaning = _Meaning.NEUTRAL  # stays so when the call is cancelled
        try:
            with _TRACER.start_as_current_span(
                f"call {service}", kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    result = await fn()
                except Exception as raised:
                    span.set_status(StatusCode.ERROR, type(raised).__name__)  # never its message, which may quote a document
                    raise
            meaning = _Meaning.SUCCESS
            self._observed(service, self._clock() - began, None)
            return result
        except Exception as raised:  # passes on: every failure of a call is counted, whatever the client raises
            error, meaning = raised, _meaning(service, raised)
            self._observed(service, self._clock() - began, raised)
            raise
        finally:
            circuit.settle(period, error, meaning)
            del error  # no cycle of frame and traceback

    def states(self) -> dict[str, int]:
        """The state of each circuit now: 0 closed, 1 half-open, 2 open. Safe to call from any thread."""
        return {name: circuit.level() for name, circuit in self._circuits.items()}

    def misconfigured(self) -> dict[str, bool]:
        """Which services refused our credential or model when last heard of. Safe to call from any thread."""
        return {name: circuit.misconfigured for name, circuit in self._circuits.items()}
