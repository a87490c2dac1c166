"""The wire: requests in both directions, errors as codes, and a peer that goes or misbehaves."""

from __future__ import annotations

import asyncio
import copy
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield.errors import DependencyUnavailable, QueryTooShort
from shield.knowledge.graph.child import _between, _join, _split
from shield.knowledge.graph.extract import read_answer
from shield.knowledge.graph.process import database_environment, table_model
from shield.knowledge.graph.tokens import PackedTokens
from shield.knowledge.graph.wire import LIMIT, Channel, Handler, PeerFailed, PeerGone, pack, unpack


@asynccontextmanager
async def channels(left: dict[str, Handler], right: dict[str, Handler]) -> AsyncIterator[tuple[Channel, Channel]]:
    one, two = socket.socketpair()
    a = Channel(*await asyncio.open_unix_connection(sock=one), left)
    b = Channel(*await asyncio.open_unix_connection(sock=two), right)
    serving = [asyncio.create_task(a.run()), asyncio.create_task(b.run())]
    try:
        yield a, b
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def test_a_request_may_ask_back_before_it_answers() -> None:
    async def double(n: int) -> int:
        return 2 * n

    async def ask(n: int) -> int:
        return int(await right.call("double", n=n)) + 1

    async with channels({"double": double}, {"ask": ask}) as (left, right):
        assert await asyncio.gather(*(left.call("ask", n=n) for n in range(5))) == [1, 3, 5, 7, 9]


async def test_a_typed_error_crosses_with_its_code_and_any_other_as_its_class_only() -> None:
    async def typed() -> None:
        raise QueryTooShort

    async def other() -> None:
        raise ValueError("quotes a document")

    async with channels({}, {"typed": typed, "other": other}) as (left, _):
        with pytest.raises(PeerFailed) as known:
            await left.call("typed")
        assert known.value.code == "query.too_short"
        with pytest.raises(PeerFailed) as unknown:
            await left.call("other")
        assert (unknown.value.code, unknown.value.kind, unknown.value.message) == ("", "ValueError", "")
        with pytest.raises(PeerFailed):
            await left.call("nothing of that name")


async def test_what_decides_about_a_retry_crosses_twice_and_nothing_else_does() -> None:
    async def embed() -> None:
        raise DependencyUnavailable(retry_after=7, service="embedding", late=True, quoted="a document")

    async def insert() -> None:
        await right.call("embed")

    async with channels({"embed": embed}, {"insert": insert}) as (left, right):
        with pytest.raises(PeerFailed) as failed:
            await left.call("insert")
    error = failed.value.typed()
    assert isinstance(error, DependencyUnavailable)
    assert (error.retry_after, error.details) == (7, {"service": "embedding", "late": True})


@pytest.mark.parametrize("form", [{}, {"code": None, "details": 5}, {"retry_after": "soon", "details": {"other": 1}}])
def test_an_error_in_an_unknown_form_is_an_untyped_one(form: dict[str, object]) -> None:
    error = PeerFailed.read(form)
    assert (error.typed(), error.retry_after, error.details) == (None, None, {})


@pytest.mark.parametrize("sent", [b"", b"\x00\x00", (LIMIT + 1).to_bytes(4, "big"), b"\x00\x00\x00\x02{]", b"\x00\x00\x00\x02[]"])
async def test_a_peer_that_goes_or_talks_nonsense_ends_all_calls(sent: bytes) -> None:
    one, two = socket.socketpair()
    channel = Channel(*await asyncio.open_unix_connection(sock=one), {})
    serving = asyncio.create_task(channel.run())
    waiting = asyncio.create_task(channel.call("anything"))
    await asyncio.sleep(0)
    two.sendall(sent)
    two.close()
    with pytest.raises(PeerGone):
        await waiting
    await serving
    with pytest.raises(PeerGone):
        await channel.call("anything")


@given(st.integers(0, 4), st.integers(1, 5))
def test_vectors_survive(rows: int, dim: int) -> None:
    vectors = np.random.default_rng(rows).random((rows, dim), dtype=np.float32)
    assert np.array_equal(unpack(pack(vectors), dim), vectors)


@given(st.text(st.characters(exclude_categories=[])))
def test_tokens_are_lossless(text: str) -> None:
    tokens = PackedTokens()
    assert tokens.decode(tokens.encode(text)) == text
    assert copy.deepcopy(tokens) is tokens


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_chunks_come_back_under_their_ordinals(texts: list[str]) -> None:
    document = "0123abcd" * 8 + "-0000"
    again = _split(None, _join(document, list(enumerate(texts, 7))))
    assert [(c["chunk_id"], c["content"]) for c in again] == [(f"chunk-{n}", text.strip() or "-") for n, text in enumerate(texts, 7)]


def test_a_part_between_two_marks_is_found_or_is_none() -> None:
    assert _between("a[b]c", ("[", "]")) == "b"
    assert _between("a[b", ("[", "]")) is None
    assert _between("]a[", ("[", "]")) is None


class TestTheDatabasesAddress:
    def test_a_socket_directory_and_a_server_with_tls(self) -> None:
        embedded = database_environment("postgresql://postgres:@/shield?host=/var/lib/shield/pg18", {"shield.kb": "ab"}, 4)
        assert embedded["POSTGRES_HOST"] == "/var/lib/shield/pg18"
        assert embedded["POSTGRES_DATABASE"] == "shield"
        assert embedded["POSTGRES_SERVER_SETTINGS"] == "shield.kb=ab"
        server = database_environment("postgresql://me:s%40cret@db:6432/x?sslmode=verify-full&sslrootcert=/ca.pem", {}, 4)
        assert (server["POSTGRES_USER"], server["POSTGRES_PASSWORD"], server["POSTGRES_PORT"]) == ("me", "s@cret", "6432")
        assert (server["PGSSLMODE"], server["PGSSLROOTCERT"]) == ("verify-full", "/ca.pem")

    def test_tls_is_left_to_the_driver_because_lightrag_makes_of_require_a_verification(self) -> None:
        server = database_environment("postgresql://me@db/x?sslmode=require&ssl_min_protocol_version=TLSv1.3", {}, 4)
        assert (server["PGSSLMODE"], server["PGSSLMINPROTOCOLVERSION"]) == ("require", "TLSv1.3")
        assert not [name for name in server if name.startswith("POSTGRES_SSL")]

    def test_models_have_short_names_of_their_own(self) -> None:
        names = {table_model(name) for name in ("a-b", "a_b", "A-B", "x" * 300, "x" * 301)}
        assert len(names) == 5
        assert all(len(name) <= 29 for name in names)


class TestAModelsAnswer:
    def test_passages_are_read_by_their_number_and_the_missing_one_is_none(self) -> None:
        answer = (
            'Sure! {"passages": [{"n": 2, "entities": [{"name": "Pump", "type": "Thing!", "description": "x"}], "relationships": null}]}'
        )
        assert read_answer(answer, 2) == [
            None,
            {"entities": [{"name": "Pump", "type": "thing", "description": "x"}], "relationships": []},
        ]

    def test_a_single_passage_may_come_without_its_wrapping(self) -> None:
        assert read_answer('{"entities": []}', 1) == [{"entities": [], "relationships": []}]

    @given(st.text(max_size=100))
    def test_nonsense_is_none(self, text: str) -> None:
        assert read_answer("[" + text, 2) == [None, None]

    def test_sizes_are_cut(self) -> None:
        entity = json.dumps({"name": "n" * 999, "type": "t" * 999, "description": "d" * 999})
        (found,) = read_answer(f'{{"entities": [{",".join([entity] * 50)}]}}', 1)
        assert found is not None
        assert len(found["entities"]) == 20
        assert max(len(value) for value in found["entities"][0].values()) == 500
