"""Who the running tool call acts for, over HTTP: whoever the server in front of the tools has found out."""

from __future__ import annotations

from shield.auth import Principal
from shield.auth.authenticator import caller_of
from shield.errors import Unauthenticated


def caller() -> Principal:
    """The principal of the request behind the tool call that runs now.

    Raises:
        Unauthenticated: there is no such request, or nobody has asked who is calling.
    """
    from fastmcp.server.dependencies import get_http_request

    try:
        request = get_http_request()
    except RuntimeError as error:
        raise Unauthenticated from error
    return caller_of(request.scope)
