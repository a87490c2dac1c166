"""Without credentials, only this machine is served."""

from __future__ import annotations

import pytest

from shield.auth.binding import check_binding
from shield.auth.local import is_local_caller, is_loopback
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


OIDC = {"mode": "oidc", "issuer": "https://id.example"}


@pytest.mark.parametrize(
    ("auth", "why"),
    [
        ({"mode": "oidc"}, "SHIELD_AUTH_ISSUER"),
        ({**OIDC, "issuer": "http://id.example"}, "SHIELD_AUTH_ISSUER must be an https"),
        ({**OIDC, "issuer": "https://u:p@id.example"}, "SHIELD_AUTH_ISSUER must be an https"),
        ({**OIDC, "jwks_url": "http://id.example/keys"}, "SHIELD_AUTH_JWKS_URL"),
        ({**OIDC, "jwks_url": "https://[broken"}, "SHIELD_AUTH_JWKS_URL"),
        ({**OIDC, "scope_map": "team=owner"}, "SHIELD_AUTH_SCOPE_MAP"),
        ({**OIDC, "scope_map": "admin"}, "SHIELD_AUTH_SCOPE_MAP"),
        ({"hop_secret": "x" * 31}, "SHIELD_AUTH_HOP_SECRET"),
    ],
)
def test_a_server_that_could_not_tell_who_is_calling_does_not_start(auth: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigInvalid, match=why):
        check_binding(load(public_url="https://shield.example", auth=auth))


def test_a_server_that_asks_for_credentials_may_leave_loopback() -> None:
    check_binding(load(host="0.0.0.0", auth={"mode": "api-key"}))
    check_binding(load(host="0.0.0.0", public_url="https://shield.example", auth=OIDC))
    check_binding(load(host="0.0.0.0", auth={**OIDC, "audience": "shield"}))
    with pytest.raises(ConfigInvalid, match="SHIELD_PUBLIC_URL"):
        check_binding(load(auth=OIDC))


def test_a_caller_is_local_only_without_proxies_on_a_loopback_server() -> None:
    assert is_local_caller(load(), "127.0.0.1", proxied=False)
    assert is_local_caller(load(), "::1", proxied=False)
    assert not is_local_caller(load(), "127.0.0.1", proxied=True)
    assert not is_local_caller(load(), "192.0.2.1", proxied=False)
    assert not is_local_caller(load(), None, proxied=False)
    assert not is_local_caller(load(public_url="https://a.example"), "127.0.0.1", proxied=False)
    assert not is_local_caller(load(host="0.0.0.0", auth={"allow_open": True}), "127.0.0.1", proxied=False)
