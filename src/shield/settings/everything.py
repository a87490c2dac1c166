"""All settings together, and how they are read: from the environment, and secrets from files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from shield.errors import ConfigInvalid
from shield.settings.base import PREFIX, Group, Texts
from shield.settings.knowledge import GraphSettings, LibrarySettings, QuerySettings
from shield.settings.models import EmbeddingSettings, LlmSettings, ShadowSettings
from shield.settings.serving import ApiSettings, AuthSettings, BreakerSettings, ClientSettings, OrchestratorSettings
from shield.settings.sources import BrowserSettings, CrawlSettings, EgressSettings, FileSettings
from shield.settings.stores import BackupSettings, PostgresSettings, QdrantSettings, RedisSettings
from shield.settings.watching import HealthSettings, ProbeSettings, TelemetrySettings
from shield.settings.work import JobSettings, WebhookSettings, WorkerSettings


def _default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/shield")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "shield"


class Settings(BaseSettings):
    """All settings; build one with `load()`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
    )

    url: str | None = None
    """A running Shield server that the command line talks to, instead of the data directory's owner."""
    mode: Literal["embedded", "server"] = "embedded"
    """`embedded` = one process with its own PostgreSQL; `server` = a fleet on services you run."""
    host: str = "127.0.0.1"
    """Address the server binds."""
    port: int = Field(8000, ge=0, le=65535)
    """Port of MCP and REST; 0 = a free one, printed."""
    metrics_port: int = Field(9090, ge=0, le=65535)
    """Port of the metrics; 0 = a free one, printed."""
    public_url: str | None = None
    """Address under which clients reach this server, when a proxy stands before it."""
    allowed_hosts: Texts = ()
    """More Host names to serve (comma-separated)."""
    allowed_origins: Texts = ()
    """Origins whose pages may call this server (comma-separated)."""
    data_dir: Path = Field(default_factory=_default_data_dir)
    """Where embedded mode keeps everything; one owner at a time."""
    document_root: Path | None = None
    """Folder below which files may be ingested by path, on loopback and stdio only; unset = never."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` = readable on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""

    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    qdrant: QdrantSettings = QdrantSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    shadow: ShadowSettings = ShadowSettings()
    llm: LlmSettings = LlmSettings()
    egress: EgressSettings = EgressSettings()
    crawl: CrawlSettings = CrawlSettings()
    browser: BrowserSettings = BrowserSettings()
    file: FileSettings = FileSettings()
    jobs: JobSettings = JobSettings()
    graph: GraphSettings = GraphSettings()
    query: QuerySettings = QuerySettings()
    library: LibrarySettings = LibrarySettings()
    auth: AuthSettings = AuthSettings()
    api: ApiSettings = ApiSettings()
    client: ClientSettings = ClientSettings()
    breaker: BreakerSettings = BreakerSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    worker: WorkerSettings = WorkerSettings()
    webhook: WebhookSettings = WebhookSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    health: HealthSettings = HealthSettings()
    backup: BackupSettings = BackupSettings()
    probe: ProbeSettings = ProbeSettings()

    @model_validator(mode="after")
    def _server_mode_is_complete(self) -> Self:
        if self.mode == "server":
            missing = [
                name
                for name, value in (
                    ("SHIELD_POSTGRES_DSN", self.postgres.dsn),
                    ("SHIELD_REDIS_URL", self.redis.url),
                    ("SHIELD_QDRANT_URL", self.qdrant.url),
                )
                if not value
            ]
            if missing:
                raise ValueError(f"SHIELD_MODE=server needs {', '.join(missing)}")
        if self.llm.provider != "none" and not (self.llm.base_url and self.llm.model):
            raise ValueError("SHIELD_LLM_PROVIDER needs SHIELD_LLM_BASE_URL and SHIELD_LLM_MODEL")
        for name, group in (("EMBEDDING", self.embedding), ("SHADOW", self.shadow)):
            if group.provider != "builtin" and not group.base_url:
                raise ValueError(f"SHIELD_{name}_PROVIDER needs SHIELD_{name}_BASE_URL")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _SecretFiles(settings_cls), _Environment(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `SHIELD_<GROUP>_<FIELD>_FILE` for every secret field."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable, (group, name) in _secret_files().items():
            if path := os.environ.get(variable):
                try:
                    found.setdefault(group, {})[name] = Path(path).read_text(encoding="utf-8").strip()
                except (OSError, UnicodeDecodeError) as error:
                    raise ConfigInvalid(f"{variable} names a file that cannot be read.") from error
        return found


class _Environment(EnvSettingsSource):
    """The environment without the variables that `_SecretFiles` reads, which would look like unknown fields of their groups."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        kept_elsewhere = {variable for variable, (group, name) in _secret_files().items() if not _declares(group, f"{name}_file")}
        return {name: value for name, value in super()._load_env_vars().items() if name.upper() not in kept_elsewhere}


def _declares(group: str, name: str) -> bool:
    model = Settings.model_fields[group].annotation
    return isinstance(model, type) and issubclass(model, Group) and name in model.model_fields


def _secret_files() -> dict[str, tuple[str, str]]:
    """The variables that may name a file, with the group and field each stands for."""
    groups = {name: info.annotation for name, info in Settings.model_fields.items()}
    return {
        f"{PREFIX}{group}_{name}_FILE".upper(): (group, name)
        for group, model in groups.items()
        if isinstance(model, type) and issubclass(model, Group)
        for name, field in model.model_fields.items()
        if SecretStr in getattr(field.annotation, "__args__", ()) or (group, name) == ("qdrant", "url")
    }


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` win (for tests and command-line options).

    Raises:
        ConfigInvalid: a value is missing, unknown or out of range; the message names it, never its content.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" if item["loc"] else item["msg"]
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigInvalid(f"The configuration is not valid. {problems}") from error
