"""The five dashboards. What a panel shows is said in its description; the queries use the recording rules where there is one."""

from __future__ import annotations

from monitoring.boards import circuit_breaker, job_queue, mcp_server, orchestrator, slo_overview
from monitoring.model import Config


def dashboards(config: Config) -> dict[str, str]:
    """Each dashboard's file by its name."""
    made = (mcp_server.board(config), orchestrator.board(), circuit_breaker.board(), job_queue.board(), slo_overview.board(config))
    return {board.uid.removeprefix("shield-"): board.to_json() for board in made}
