"""Filters: what callers may write, and what is refused by name."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import InvalidRequest
from shield.knowledge.filters import vector_filter
from shield.knowledge.vectors.port import Range

ID = "6f0b7c9e-4f0e-5d39-9d0b-0c9a4d3f5a11"


@pytest.mark.parametrize(
    ("name", "value", "field", "condition"),
    [
        ("source", "https://a/b", "source", "https://a/b"),
        ("kind", ["web", "note"], "kind", ("web", "note")),
        ("document_id", ID.upper(), "document", ID),
        ("document_id", [UUID(ID)], "document", (ID,)),
        ("metadata.year", 2024, "metadata.year", 2024),
        ("metadata.draft", False, "metadata.draft", False),
        ("metadata.score", {"gte": 1, "lt": None}, "metadata.score", Range(gte=1.0)),
        ("fetched_at", {"gt": 5.5, "lte": 9}, "fetched_at", Range(gt=5.5, lte=9.0)),
    ],
)
def test_a_filter_becomes_that_of_the_index(name: str, value: Any, field: str, condition: Any) -> None:
    found = vector_filter({name: value})
    assert found is not None
    assert dict(found.must) == {field: condition}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "x"),
        ("revision", 1),
        ("kb", "x"),
        ("metadata.", "x"),
        ("metadata.a b", "x"),
        ("source", 5),
        ("source", {"gte": 1}),
        ("document_id", "not an id"),
        ("document_id", {"gte": 1}),
        ("fetched_at", "yesterday"),
        ("fetched_at", True),
        ("metadata.a", float("nan")),
        ("metadata.a", None),
        ("metadata.a", []),
        ("metadata.a", ["x"] * 101),
        ("metadata.a", {}),
        ("metadata.a", {"gte": "x"}),
        ("metadata.a", {"above": 1}),
        ("metadata.a", {"gte": float("inf")}),
        ("metadata.a", "a sentence of eight words is no filter value"),
    ],
)
def test_what_cannot_be_filtered_by_is_refused_by_name_and_not_by_value(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        vector_filter({name: value})
    assert refused.value.details["field"] == f"filters.{name}"


def test_no_filter_is_none_and_too_many_are_refused() -> None:
    assert vector_filter({}) is None
    with pytest.raises(InvalidRequest):
        vector_filter({f"metadata.k{n}": 1 for n in range(17)})


@given(
    st.dictionaries(
        st.text(max_size=90), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()), max_size=5
    )
)
def test_anything_is_either_taken_or_refused(filters: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequest):
        vector_filter(filters)
