"""The catalogue that every table belongs to, and the kinds of columns that most of them have."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, MetaData, func, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def now(name: str, *, nullable: bool = False) -> Column[object]:
    """A point in time that the database sets when the row is made, unless told otherwise."""
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=None if nullable else func.now())


def at(name: str) -> Column[object]:
    """A point in time that may not have come."""
    return Column(name, DateTime(timezone=True), nullable=True)


def json(name: str, default: str = "{}") -> Column[object]:
    """A JSON value, an empty object unless told otherwise."""
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))


def count(name: str) -> Column[int]:
    """A number that begins at zero."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))
