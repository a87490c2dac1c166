"""What a principal may do, and what it may see."""

from __future__ import annotations

import pytest

from shield.auth import LOCAL, Principal, Scope
from shield.errors import Forbidden

READER = Principal("reader", frozenset({Scope.KB_READ}), frozenset({"team"}))


def test_a_scope_that_is_missing_is_named() -> None:
    READER.require(Scope.KB_READ)
    with pytest.raises(Forbidden, match="kb:write") as caught:
        READER.require(Scope.KB_WRITE)
    assert caught.value.details == {"scope": "kb:write"}


def test_an_administrator_may_do_everything_everywhere() -> None:
    admin = Principal("admin", frozenset({Scope.ADMIN}), frozenset())
    for scope in Scope:
        admin.require(scope)
    assert admin.sees("anything", "somebody")
    assert LOCAL.sees("anything", "somebody")


def test_a_base_is_seen_by_grant_or_by_ownership_and_otherwise_not() -> None:
    assert READER.sees("team", "somebody")
    assert READER.sees("mine", "reader")
    assert not READER.sees("default", "local")
    assert Principal("all", frozenset()).sees("default", "local")
