"""Circuit breakers and retries for outgoing calls."""
