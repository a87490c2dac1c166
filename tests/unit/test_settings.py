"""Settings from the environment: secrets as values or as files, durations, mistakes that are named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from shield.errors import ConfigInvalid
from shield.settings import describe, load


def test_a_secret_is_read_from_the_file_its_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from a file\n", encoding="utf-8")
    for variable in ("SHIELD_API_KEY_FILE", "SHIELD_AUTH_HOP_SECRET_FILE", "SHIELD_POSTGRES_DSN_FILE", "SHIELD_QDRANT_API_KEY_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "secret"))
    settings = load()
    for secret in (settings.api.key, settings.auth.hop_secret, settings.postgres.dsn, settings.qdrant.api_key):
        assert secret is not None
        assert secret.get_secret_value() == "from a file"
    assert not any("from a file" in row.value for row in describe(settings))


def test_a_file_that_cannot_be_read_is_named_and_so_is_a_variable_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELD_AUTH_HOP_SECRET_FILE", "/nowhere/at/all")
    with pytest.raises(ConfigInvalid, match="SHIELD_AUTH_HOP_SECRET_FILE names a file"):
        load()
    monkeypatch.delenv("SHIELD_AUTH_HOP_SECRET_FILE")
    monkeypatch.setenv("SHIELD_AUTH_HOP_SECRTE_FILE", "/nowhere")
    with pytest.raises(ConfigInvalid, match="SHIELD_AUTH_HOP_SECRTE_FILE"):
        load()


def test_a_value_and_a_list_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELD_API_KEY", "k")
    monkeypatch.setenv("SHIELD_URL", "https://shield.example")
    monkeypatch.setenv("SHIELD_AUTH_SCOPE_MAP", "team=admin, readers=kb:read")
    monkeypatch.setenv("SHIELD_AUTH_KEY_GRACE", "90")
    settings = load()
    assert settings.api.key is not None
    assert settings.api.key.get_secret_value() == "k"
    assert settings.url == "https://shield.example"
    assert settings.auth.scope_map == ("team=admin", "readers=kb:read")
    assert settings.auth.key_grace == timedelta(seconds=90)


def test_what_a_key_was_found_to_be_is_forgotten_within_half_a_minute() -> None:
    with pytest.raises(ConfigInvalid, match="INTROSPECTION_TTL"):
        load(auth={"introspection_ttl": 31})
