"""Secrets come as files, the way Kubernetes and systemd hand them over; addresses of endpoints are checked at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shield.errors import ConfigInvalid
from shield.settings import describe, load


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("sesame\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("variable", "group", "field"),
    [
        ("SHIELD_POSTGRES_DSN_FILE", "postgres", "dsn"),
        ("SHIELD_REDIS_URL_FILE", "redis", "url"),
        ("SHIELD_QDRANT_URL_FILE", "qdrant", "url"),
        ("SHIELD_QDRANT_API_KEY_FILE", "qdrant", "api_key"),
        ("SHIELD_LLM_API_KEY_FILE", "llm", "api_key"),
        ("SHIELD_EMBEDDING_API_KEY_FILE", "embedding", "api_key"),
    ],
)
def test_a_secret_is_read_from_the_file_its_variable_names(
    monkeypatch: pytest.MonkeyPatch, secret: Path, variable: str, group: str, field: str
) -> None:
    monkeypatch.setenv(variable, str(secret))
    value = getattr(getattr(load(), group), field)
    assert (value if isinstance(value, str) else value.get_secret_value()) == "sesame"


def test_it_stands_beside_the_groups_other_variables(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv("SHIELD_QDRANT_API_KEY_FILE", str(secret))
    monkeypatch.setenv("SHIELD_QDRANT_TIMEOUT", "3")
    qdrant = load().qdrant
    assert qdrant.api_key is not None
    assert (qdrant.api_key.get_secret_value(), qdrant.timeout.total_seconds()) == ("sesame", 3)


def test_the_address_of_a_key_file_is_shown_and_its_content_is_not(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv("SHIELD_LLM_API_KEY_FILE", str(secret))
    rows = {row.variable: row.value for row in describe(load())}
    assert rows["SHIELD_LLM_API_KEY_FILE"] == str(secret)
    assert "sesame" not in "".join(rows.values())


@pytest.mark.parametrize("variable", ["SHIELD_QDRANT_TIMEOUT_FILE", "SHIELD_JOBS_LEASE_FILE"])
def test_what_is_no_secret_has_no_file(monkeypatch: pytest.MonkeyPatch, secret: Path, variable: str) -> None:
    monkeypatch.setenv(variable, str(secret))
    with pytest.raises(ConfigInvalid, match=variable):
        load()


def test_a_file_that_is_not_there_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv("SHIELD_POSTGRES_DSN_FILE", str(secret.with_name("none")))
    with pytest.raises(ConfigInvalid, match="SHIELD_POSTGRES_DSN_FILE"):
        load()


@pytest.mark.parametrize("address", ["127.0.0.1:11434", "ftp://host/", "http://", "http://host:99999", "http://key@host/", "http://[::1"])
@pytest.mark.parametrize("group", ["LLM", "EMBEDDING"])
def test_an_endpoints_address_is_one_and_holds_no_credential(monkeypatch: pytest.MonkeyPatch, group: str, address: str) -> None:
    monkeypatch.setenv(f"SHIELD_{group}_BASE_URL", address)
    with pytest.raises(ConfigInvalid, match=f"SHIELD_{group}_BASE_URL") as refused:
        load()
    assert "key@" not in str(refused.value)
