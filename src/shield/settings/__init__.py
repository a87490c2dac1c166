"""Every knob of Shield, one group a concern, each with the sentence that `shield config` and the docs show.

A setting is read from the environment (`SHIELD_` + group + `_` + field, as in `SHIELD_EGRESS_PORTS`) or, for secrets, from a
file named by the same variable with `_FILE` behind it. Nothing is guessed from partial settings: `SHIELD_MODE=server`
demands its three URLs. Defaults are decided in one table; change one only with an ADR.

Each module holds the groups of an area; all are imported from here.
"""

from __future__ import annotations

from shield.settings.base import PREFIX, Duration, GiB, Group, KiB, MiB, seconds
from shield.settings.everything import Settings, load
from shield.settings.knowledge import GraphSettings, LibrarySettings, QuerySettings
from shield.settings.models import EmbeddingSettings, LlmSettings, ShadowSettings
from shield.settings.serving import ApiSettings, AuthSettings, BreakerSettings, ClientSettings, OrchestratorSettings
from shield.settings.sources import BrowserSettings, CrawlSettings, EgressSettings, FileSettings
from shield.settings.stores import BackupSettings, PostgresSettings, QdrantSettings, RedisSettings
from shield.settings.table import SettingRow, describe
from shield.settings.watching import HealthSettings, ProbeSettings, TelemetrySettings
from shield.settings.work import JobSettings, WebhookSettings, WorkerSettings

__all__ = [
    "PREFIX",
    "ApiSettings",
    "AuthSettings",
    "BackupSettings",
    "BreakerSettings",
    "BrowserSettings",
    "ClientSettings",
    "CrawlSettings",
    "Duration",
    "EgressSettings",
    "EmbeddingSettings",
    "FileSettings",
    "GiB",
    "GraphSettings",
    "Group",
    "HealthSettings",
    "JobSettings",
    "KiB",
    "LibrarySettings",
    "LlmSettings",
    "MiB",
    "OrchestratorSettings",
    "PostgresSettings",
    "ProbeSettings",
    "QdrantSettings",
    "QuerySettings",
    "RedisSettings",
    "SettingRow",
    "Settings",
    "ShadowSettings",
    "TelemetrySettings",
    "WebhookSettings",
    "WorkerSettings",
    "describe",
    "load",
    "seconds",
]
