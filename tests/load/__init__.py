"""Load on a fleet: capacity, three times the capacity, and a soak (`python -m tests.load`)."""
