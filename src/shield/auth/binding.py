"""Whether a server may start with its settings: nobody is served without being asked who he is, unless the operator says so twice."""

from __future__ import annotations

from shield.auth.hop import HopTokens
from shield.auth.jwks import check_oidc
from shield.auth.local import is_loopback
from shield.auth.oidc import audiences, scope_map
from shield.errors import ConfigInvalid
from shield.settings import Settings


def check_binding(settings: Settings) -> None:
    """Pass if a server with these settings is safe to start.

    Raises:
        ConfigInvalid: it would serve strangers without asking who they are, or could not tell who they are.
    """
    HopTokens.of(settings)
    if settings.auth.mode == "oidc":
        check_oidc(settings.auth)
        audiences(settings)
        scope_map(settings.auth.scope_map)
    elif settings.auth.mode == "none" and not is_loopback(settings.host) and not settings.auth.allow_open:
        raise ConfigInvalid(
            f"SHIELD_HOST={settings.host} would let everybody on the network in, since SHIELD_AUTH_MODE is `none`."
            " Choose the mode `api-key` or `oidc`, or set SHIELD_AUTH_ALLOW_OPEN=true if that is what you want."
        )
