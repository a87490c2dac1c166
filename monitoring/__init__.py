"""Service level objectives, alerts, dashboards: one source, from which the rules of the chart and of a plain Prometheus are generated."""
