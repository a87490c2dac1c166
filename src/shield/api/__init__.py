"""Orchestrator: the REST API, one router a resource."""
