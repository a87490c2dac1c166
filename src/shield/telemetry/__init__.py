"""Metrics, logs and traces: bounded labels, and never document text, query text or tokens."""
