"""API keys in the database: making, listing, revoking, rotating, and telling whom one belongs to.

The database's clock decides whether a key is valid, and it is asked for every request, so a revoked key is refused by the next one.
A key that is wrong, unknown, expired or revoked costs one look-up and one comparison, and gets one answer. Each change leaves an
audit record in the same transaction. Only administrators get here; a command with access to the database makes the first key.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shield.auth import Principal, Scope
from shield.auth import keys as form
from shield.database.engine import database_errors
from shield.database.tables import api_keys
from shield.errors import ConfigInvalid, CredentialInvalid, UnknownKey
from shield.service.audit import record_in
from shield.service.models import KeyCreate, KeyCreated, KeyList, KeyRotate, KeyView
from shield.settings import AuthSettings

MOST_LISTED = 1000
_VALID = sa.and_(api_keys.c.revoked_at.is_(None), sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.func.now()))
_SHOWN = [*(column for column in api_keys.c if column.name != "sha256"), _VALID.label("valid")]


class ApiKeys:
    """The keys of an installation; also a `shield.auth.keys.KeyVerifier`."""

    def __init__(self, engine: AsyncEngine, settings: AuthSettings) -> None:
        self._engine = engine
        self._settings = settings

    # -- for every request --------------------------------------------------------------------------------------------

    async def principal(self, key: str) -> Principal:
        """Whom a key belongs to.

        Raises:
            CredentialInvalid: it is no key, or not a valid one.
            DatabaseUnavailable: that cannot be told at the moment.
        """
        key_id = form.key_id(key)
        if key_id is None:
            raise CredentialInvalid
        seen = self._settings.key_seen
        unseen = sa.or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < sa.func.now() - seen)
        wanted = sa.select(*api_keys.c, _VALID.label("valid"), unseen.label("unseen")).where(api_keys.c.id == key_id)
        with database_errors():
            async with self._engine.connect() as connection:
                row = (await connection.execute(wanted)).one_or_none()
            if not form.matches(key, bytes(row.sha256) if row else None) or row is None or not row.valid:
                raise CredentialInvalid
            if row.unseen:
                async with self._engine.begin() as connection:
                    await connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id, unseen).values(last_used_at=sa.func.now()))
        bases = None if row.knowledge_bases is None else frozenset(row.knowledge_bases)
        return Principal(row.principal, frozenset(Scope(scope) for scope in row.scopes if scope in set(Scope)), bases)

    # -- for administrators -------------------------------------------------------------------------------------------

    async def keys(self, who: Principal) -> KeyList:
        """All keys, newest first, without their secrets."""
        who.require(Scope.ADMIN)
        wanted = sa.select(*_SHOWN).order_by(api_keys.c.created_at.desc(), api_keys.c.id).limit(MOST_LISTED)
        with database_errors():
            async with self._engine.connect() as connection:
                return KeyList(keys=[_view(row) for row in await connection.execute(wanted)])

    async def create_key(self, who: Principal, request: KeyCreate) -> KeyCreated:
        """Make a key; the answer is the only place where its secret ever stands."""
        who.require(Scope.ADMIN)
        new = form.mint()
        with database_errors():
            async with self._engine.begin() as connection:
                made = await _insert(connection, who, new, _rights(new, request))
                await record_in(connection, who.name, "key.create", new.id, _facts(made))
        return made

    async def adopt_key(self, who: Principal, secret: str, request: KeyCreate) -> bool:
        """Let a key in that was made elsewhere; tells whether it is new. One that is known stays as it is, even if it was revoked.

        Raises:
            ConfigInvalid: it has not the form of a key, or another key has its id.
        """
        who.require(Scope.ADMIN)
        key_id = form.key_id(secret)
        if key_id is None:
            raise ConfigInvalid(f"This is no API key of Shield: {form.PREFIX}, 8 characters, _ and 43 characters.")
        new = form.NewKey(key_id, secret)
        adopted = postgresql.insert(api_keys).values(id=new.id, sha256=new.digest, created_by=who.name, **_rights(new, request))
        with database_errors():
            async with self._engine.begin() as connection:
                row = (await connection.execute(adopted.on_conflict_do_nothing().returning(*_SHOWN))).one_or_none()
                if row is not None:
                    await record_in(connection, who.name, "key.create", new.id, _facts(_view(row)))
                    return True
                known = (await connection.execute(sa.select(api_keys.c.sha256).where(api_keys.c.id == key_id))).scalar_one()
        if not form.matches(secret, bytes(known)):
            raise ConfigInvalid(f"There is another key with the id {key_id}.")
        return False

    async def revoke_key(self, who: Principal, key_id: str) -> KeyView:
        """End a key at once; doing it again changes nothing.

        Raises:
            UnknownKey: there is none of that id.
        """
        who.require(Scope.ADMIN)
        ended = sa.update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.func.now()))
        with database_errors():
            async with self._engine.begin() as connection:
                row = (await connection.execute(ended.returning(*_SHOWN))).one_or_none()
                if row is None:
                    raise UnknownKey
                await record_in(connection, who.name, "key.revoke", key_id, {"principal": row.principal})
        return _view(row)

    async def rotate_key(self, who: Principal, key_id: str, request: KeyRotate) -> KeyCreated:
        """A new key for the same principal, with the same rights and lifetime; the old one ends after its grace period.

        Raises:
            UnknownKey: there is no valid key of that id, or it was rotated before.
        """
        who.require(Scope.ADMIN)
        new = form.mint()
        grace = self._settings.key_grace if request.grace_seconds is None else timedelta(seconds=request.grace_seconds)
        replaced = (
            sa.update(api_keys)
            .where(api_keys.c.id == key_id, _VALID, api_keys.c.replaced_by.is_(None))
            .values(replaced_by=new.id, expires_at=sa.func.least(api_keys.c.expires_at, sa.func.now() + grace))
        )
        life = sa.select(*_SHOWN, (api_keys.c.expires_at - api_keys.c.created_at).label("life")).where(api_keys.c.id == key_id)
        with database_errors():
            async with self._engine.begin() as connection:
                old = (await connection.execute(life.with_for_update())).one_or_none()
                if old is None or (await connection.execute(replaced)).rowcount != 1:
                    raise UnknownKey
                values = {name: getattr(old, name) for name in ("name", "principal", "scopes", "knowledge_bases")}
                values["expires_at"] = None if old.life is None else sa.func.now() + old.life
                made = await _insert(connection, who, new, values)
                await record_in(connection, who.name, "key.rotate", new.id, {**_facts(made), "replaces": key_id})
        return made


async def _insert(connection: AsyncConnection, who: Principal, new: form.NewKey, values: dict[str, Any]) -> KeyCreated:
    made = sa.insert(api_keys).values(id=new.id, sha256=new.digest, created_by=who.name, **values).returning(*_SHOWN)
    row = (await connection.execute(made)).one()
    return KeyCreated(**_view(row).model_dump(), key=new.secret)


def _rights(new: form.NewKey, request: KeyCreate) -> dict[str, Any]:
    """The columns that a request decides."""
    everywhere = request.knowledge_bases is None or Scope.ADMIN in request.scopes
    return {
        "name": request.name,
        "principal": request.principal or f"key:{new.id}",
        "scopes": sorted(set(request.scopes)),
        "knowledge_bases": None if everywhere else sorted(set(request.knowledge_bases or ())),
        "expires_at": sa.func.now() + timedelta(days=request.expires_in_days) if request.expires_in_days else None,
    }


def _facts(key: KeyView) -> dict[str, str]:
    """What the audit trail says about a key."""
    bases = "*" if key.knowledge_bases is None else " ".join(key.knowledge_bases)
    return {"principal": key.principal, "scopes": " ".join(key.scopes), "knowledge_bases": bases}


def _view(row: Any) -> KeyView:
    return KeyView(**{name: getattr(row, name) for name in KeyView.model_fields})
