"""Circuit breakers, retries and the one HTTP client for outgoing calls to models."""

from shield.resilience.breaker import SERVICES, Breakers
from shield.resilience.dependency import dependency_error, retry_after_seconds
from shield.resilience.retry import retry, transient

__all__ = ["SERVICES", "Breakers", "dependency_error", "retry", "retry_after_seconds", "transient"]
