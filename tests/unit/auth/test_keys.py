"""The form of a key, and its comparison."""

from __future__ import annotations

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from shield.auth import keys


def test_a_key_has_the_decided_form_and_is_never_the_same() -> None:
    made = [keys.mint() for _ in range(100)]
    assert all(re.fullmatch(r"shk_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", key.secret) for key in made)
    assert len({key.id for key in made}) == len({key.secret for key in made}) == 100
    assert all(keys.key_id(key.secret) == key.id for key in made)
    assert made[0].digest == hashlib.sha256(made[0].secret.encode()).digest()


def test_a_key_matches_its_own_digest_only() -> None:
    key, other = keys.mint(), keys.mint()
    assert keys.matches(key.secret, key.digest)
    assert not keys.matches(key.secret, other.digest)
    assert not keys.matches(key.secret[:-1] + ("a" if key.secret[-1] != "a" else "b"), key.digest)
    assert not keys.matches(key.secret, None)


@given(st.text(max_size=80))
def test_what_has_not_the_form_has_no_id(text: str) -> None:
    assert keys.key_id(text) is None
    assert keys.key_id(f"shk_{text}") is None or len(text) == 52
