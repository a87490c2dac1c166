"""Metrics, logs and traces, with bounded labels."""
