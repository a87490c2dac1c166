"""Monitoring proven: alerts under `promtool test rules`, dashboards against a Prometheus that scraped a real run."""
