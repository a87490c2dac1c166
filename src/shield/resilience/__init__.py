"""Circuit breakers and retries for outgoing calls."""

from shield.resilience.breaker import SERVICES, Breakers
from shield.resilience.dependency import dependency_error
from shield.resilience.retry import retry, transient

__all__ = ["SERVICES", "Breakers", "dependency_error", "retry", "transient"]
