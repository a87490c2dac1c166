"""Without credentials, only this machine is served."""

from __future__ import annotations

import pytest

from shield.auth.local import check_binding, is_local_caller, is_loopback
from shield.errors import ConfigInvalid
from shield.settings import load


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost", "LOCALHOST", "[::1]"])
def test_loopback_needs_no_credentials(host: str) -> None:
    assert is_loopback(host)
    check_binding(load(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "shield.example", "", "localhost.evil.example"])
def test_a_server_without_credentials_stays_on_loopback_unless_told_twice(host: str) -> None:
    with pytest.raises(ConfigInvalid, match="SHIELD_AUTH_ALLOW_OPEN"):
        check_binding(load(host=host))
    check_binding(load(host=host, auth={"allow_open": True}))


@pytest.mark.parametrize("mode", ["api-key", "oidc"])
def test_a_mode_that_does_not_exist_yet_is_refused_rather_than_ignored(mode: str) -> None:
    with pytest.raises(ConfigInvalid, match="SHIELD_AUTH_MODE"):
        check_binding(load(auth={"mode": mode}))


def test_a_caller_is_local_only_without_proxies_on_a_loopback_server() -> None:
    assert is_local_caller(load(), "127.0.0.1", proxied=False)
    assert is_local_caller(load(), "::1", proxied=False)
    assert not is_local_caller(load(), "127.0.0.1", proxied=True)
    assert not is_local_caller(load(), "192.0.2.1", proxied=False)
    assert not is_local_caller(load(), None, proxied=False)
    assert not is_local_caller(load(public_url="https://a.example"), "127.0.0.1", proxied=False)
    assert not is_local_caller(load(host="0.0.0.0", auth={"allow_open": True}), "127.0.0.1", proxied=False)
