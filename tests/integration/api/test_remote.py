"""The port over REST is the port: same calls in, same models out, same errors, over a socket and without one."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI

from shield.api.app import create_app
from shield.auth import LOCAL, Scope
from shield.errors import (
    CircuitOpen,
    ConfigInvalid,
    InternalError,
    InvalidRequest,
    KnowledgeBaseNameInvalid,
    RequestTooLarge,
    ServerUnreachable,
    leaf_errors,
)
from shield.service.models import (
    DocumentSpec,
    FindRequest,
    IngestJobUids,
    IngestRequest,
    KeyCreate,
    KeyRotate,
    KnowledgeBaseCreate,
    NamespaceBase,
    QueryRequest,
    RebuildRequest,
    ReindexRequest,
    StoreRequest,
    UploadCreate,
)
from shield.service.port import Shield
from shield.service.remote import RemoteShield
from shield.settings import ClientSettings, KiB, MiB, load
from tests.integration.api.conftest import serving
from tests.unit.stand_in import DOCUMENT, JOB, UPLOAD, StandIn

Call = Callable[[Any, bool], Awaitable[Any]]
"""A call on a port; the flag says that an upload's content is wanted."""


async def content(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


INGEST = IngestRequest(knowledge_base="kb", spec=DocumentSpec(text="Grüße \u2028 x", metadata={"a": ["b"], "n": 1.5}), priority="low")
REINDEX = ReindexRequest(model="bge/m3", dim=1024, flip=False, questions=["why?"], min_overlap=0.5)
CALLS: dict[str, Callable[[Shield], Awaitable[Any]]] = {
    "ingest": lambda port: port.ingest(LOCAL, INGEST, idempotency_key="k", local_caller=True),
    "job": lambda port: port.job(LOCAL, JOB, wait=2.5, outcomes_after=3, outcomes_limit=7),
    "jobs": lambda port: port.jobs(LOCAL, status="failed", code="job.retries_exhausted", knowledge_base="kb", limit=3, cursor="c+/="),
    "cancel": lambda port: port.cancel(LOCAL, JOB),
    "retry": lambda port: port.retry(LOCAL, JOB),
    "find": lambda port: port.find(LOCAL, FindRequest(query="pümpe", filters={"kind": ["a", "b"], "metadata.n": 3}, cursor="c")),
    "store": lambda port: port.store(LOCAL, StoreRequest(text="x", source="s", metadata={"n": True})),
    "query": lambda port: port.query(LOCAL, QueryRequest(query="why?", mode="local", top_k=3)),
    "documents": lambda port: port.documents(LOCAL, knowledge_base="kb", source_prefix="https://a/?b=c&d#e", limit=2, cursor="c"),
    "document": lambda port: port.document(LOCAL, DOCUMENT, knowledge_base="kb", offset=5, max_tokens=100),
    "delete_document": lambda port: port.delete_document(LOCAL, DOCUMENT, knowledge_base="kb"),
    "knowledge_bases": lambda port: port.knowledge_bases(LOCAL),
    "create_knowledge_base": lambda port: port.create_knowledge_base(LOCAL, KnowledgeBaseCreate(name="kb", description="ü", graph=False)),
    "delete_knowledge_base": lambda port: port.delete_knowledge_base(LOCAL, "kb"),
    "knowledge_base_hash": lambda port: port.knowledge_base_hash(LOCAL, "kb"),
    "collections": lambda port: port.collections(LOCAL, "kb"),
    "check_knowledge_base": lambda port: port.check_knowledge_base(LOCAL, "kb"),
    "rebuild_knowledge_base": lambda port: port.rebuild_knowledge_base(LOCAL, "kb", RebuildRequest(fresh=True)),
    "reindex_knowledge_base": lambda port: port.reindex_knowledge_base(LOCAL, "kb", REINDEX),
    "flip_knowledge_base": lambda port: port.flip_knowledge_base(LOCAL, "kb"),
    "rollback_knowledge_base": lambda port: port.rollback_knowledge_base(LOCAL, "kb"),
    "discard_collections": lambda port: port.discard_collections(LOCAL, "kb"),
    "ingest_job_progress": lambda port: port.ingest_job_progress(LOCAL, IngestJobUids(uids=["a-1", "b-2"])),
    "cancel_ingest_jobs": lambda port: port.cancel_ingest_jobs(LOCAL, IngestJobUids(uids=["a-1"])),
    "active_ingest_jobs": lambda port: port.active_ingest_jobs(LOCAL, after="a-1", limit=3, namespaces=["team-a", "team-b"]),
    "ensure_namespace_base": lambda port: port.ensure_namespace_base(
        LOCAL, "team-a", "team-a--docs", NamespaceBase(description="ü", graph=False)
    ),
    "create_upload": lambda port: port.create_upload(LOCAL, UploadCreate(filename='Ä "x".pdf', mime="application/pdf")),
    "put_upload": lambda port: port.put_upload(UPLOAD, "to+ken/=&", content(b"a" * 1000, b"", b"b")),
    "upload": lambda port: port.upload(LOCAL, 'Ä "x".pdf', "application/pdf", content(b"\r\n--", b"a" * 1000)),
    "keys": lambda port: port.keys(LOCAL),
    "create_key": lambda port: port.create_key(LOCAL, KeyCreate(name="ü", scopes=[Scope.CRAWL], knowledge_bases=None, expires_in_days=3)),
    "revoke_key": lambda port: port.revoke_key(LOCAL, "k3v9x0ab"),
    "rotate_key": lambda port: port.rotate_key(LOCAL, "k3v9x0ab", KeyRotate(grace_seconds=5)),
    "health": lambda port: port.health(),
}


def test_every_method_of_the_port_is_called_here() -> None:
    methods = {name for name, member in inspect.getmembers(Shield) if not name.startswith("_") and callable(member)}
    assert methods == set(CALLS) | {"events"}


@pytest.mark.parametrize("method", CALLS)
async def test_a_call_arrives_as_it_was_made_and_its_answer_comes_back(method: str, remote: RemoteShield, stand_in: StandIn) -> None:
    local = StandIn()
    expected = await CALLS[method](local)
    assert await CALLS[method](remote) == expected
    assert stand_in.calls == local.calls
    assert stand_in.digest.digest() == local.digest.digest()


async def test_an_upload_without_a_type_has_none(remote: RemoteShield, stand_in: StandIn) -> None:
    await remote.upload(LOCAL, "a", None, content(b"x"))
    assert stand_in.calls[0][1]["mime"] is None


async def test_a_trace_goes_along(remote: RemoteShield, stand_in: StandIn) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await remote.ingest(LOCAL, INGEST, traceparent=trace)
    assert stand_in.calls[0][1]["traceparent"] == trace


@pytest.mark.parametrize("code", leaf_errors())
async def test_every_error_arrives_as_its_own_class(code: str, app: FastAPI, stand_in: StandIn) -> None:
    sent = leaf_errors()[code]("Exactly this.", retry_after=1.25, limit=3, code="odder")
    stand_in.raises = sent
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        remote = RemoteShield("http://localhost", client)
        for call in (
            remote.find(LOCAL, FindRequest(query="x")),
            remote.put_upload(UPLOAD, "t", content(b"x")),
            anext(remote.events(LOCAL, JOB)),
        ):
            with pytest.raises(type(sent)) as caught:
                await call
            assert type(caught.value) is type(sent)
            assert caught.value.public() == sent.public()


async def test_errors_arrive_over_a_socket_too(server: str, stand_in: StandIn) -> None:
    async with RemoteShield(server) as remote:
        for code, leaf in leaf_errors().items():
            stand_in.raises = leaf("This.")
            with pytest.raises(leaf):
                await remote.jobs(LOCAL)
            assert leaf.code == code


async def test_events_come_one_by_one_with_their_ids(remote: RemoteShield) -> None:
    events = [item async for item in remote.events(LOCAL, JOB, "1-0")]
    assert events == [("1-0", "snapshot", {"title": "Zeile\n\u2028zwei"}), ("1-1", "progress", {"n": 1}), ("1-2", "end", {})]


async def test_events_arrive_while_the_job_still_runs_and_a_silent_stream_lives_on_comments(server: str, stand_in: StandIn) -> None:
    stand_in.hold.clear()
    async with RemoteShield(server, settings=ClientSettings(timeout=timedelta(seconds=0.3))) as remote:
        events = remote.events(LOCAL, JOB)
        assert (await anext(events))[1] == "snapshot"
        following = asyncio.ensure_future(anext(events))
        await asyncio.wait({following}, timeout=0.6)  # longer than the client bears silence
        assert not following.done()
        stand_in.hold.set()
        assert (await following)[1] == "progress"
        await events.aclose()  # type: ignore[attr-defined]


async def test_leaving_a_stream_frees_the_server(server: str, stand_in: StandIn) -> None:
    stand_in.hold.clear()
    async with RemoteShield(server) as remote:
        events = remote.events(LOCAL, JOB)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(stand_in.events_closed.wait(), 2)


async def test_an_error_in_the_middle_of_a_stream_is_raised(remote: RemoteShield, stand_in: StandIn) -> None:
    stand_in.script = [("1-0", "snapshot", {}), CircuitOpen(retry_after=2, service="llm")]
    events = remote.events(LOCAL, JOB)
    assert await anext(events) == ("1-0", "snapshot", {})
    with pytest.raises(CircuitOpen) as caught:
        await anext(events)
    assert (caught.value.retry_after, caught.value.details) == (2, {"service": "llm"})


async def test_a_server_that_is_down_says_so_as_an_answer(remote: RemoteShield, stand_in: StandIn) -> None:
    stand_in.health_status = "down"
    assert (await remote.health()).status == "down"
    stand_in.raises = CircuitOpen()
    with pytest.raises(CircuitOpen):
        await remote.health()


async def test_a_large_upload_streams_through(server: str, stand_in: StandIn) -> None:
    part, digest = bytes(range(256)) * 256, hashlib.sha256()

    async def parts() -> AsyncIterator[bytes]:
        for number in range(400):  # 25 MiB
            digest.update(part)
            yield part
            assert stand_in.received > (number - 60) * len(part)  # never far ahead of the reader: sockets' buffers, no more

    async with RemoteShield(server) as remote:
        await remote.upload(LOCAL, "big.bin", None, parts())
    assert stand_in.digest.digest() == digest.digest()
    assert max(stand_in.chunks) <= 256 * KiB


async def test_the_sender_of_a_refused_body_sees_why(app: FastAPI, stand_in: StandIn) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"a" * 64 * KiB

    small = create_app(stand_in, load(file={"max_bytes": 1 * MiB}, api={"linger": 3}))
    async with serving(small) as url, RemoteShield(url) as remote:
        for _ in range(3):
            with pytest.raises(RequestTooLarge):
                await remote.put_upload(UPLOAD, "t", endless())
        with pytest.raises(RequestTooLarge):
            await remote.ingest(LOCAL, IngestRequest(spec=DocumentSpec(text="ü" * 1_048_576, title="x" * 500, source="y" * 2048)))


async def test_an_early_refusal_by_the_port_reaches_the_sender(server: str, stand_in: StandIn) -> None:
    stand_in.raises = leaf_errors()["document.upload_not_found"]()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"a" * 64 * KiB

    async with RemoteShield(server) as remote:
        for _ in range(5):
            with pytest.raises(leaf_errors()["document.upload_not_found"]):
                await remote.put_upload(UPLOAD, "t", parts())


async def test_an_upload_that_breaks_off_is_not_taken_for_whole(server: str, stand_in: StandIn) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"a" * 1000
        await stand_in.progress.wait()
        raise ConfigInvalid("the reader of the file failed")

    async with RemoteShield(server) as remote:
        with pytest.raises(ConfigInvalid):
            await remote.upload(LOCAL, "a", None, breaks())
        assert (await remote.jobs(LOCAL)).jobs  # and the server goes on


async def test_no_server_is_said_plainly() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with RemoteShield(f"http://127.0.0.1:{port}") as remote:
        with pytest.raises(ServerUnreachable):
            await remote.jobs(LOCAL)
        with pytest.raises(ServerUnreachable):
            await anext(remote.events(LOCAL, JOB))


async def test_a_name_that_could_be_another_route_never_leaves(remote: RemoteShield, stand_in: StandIn) -> None:
    for name in ("../jobs", "a/b", "", "a?b", "a" * 41, "Ä", ".."):
        with pytest.raises(KnowledgeBaseNameInvalid):
            await remote.delete_knowledge_base(LOCAL, name)
    assert stand_in.calls == []


@pytest.mark.parametrize("url", ["ftp://a", "localhost:8000", "", "http://", "http://[", "http://a:x", "http://u:p@a/"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        RemoteShield(url)


async def _other_service(request: web.Request) -> web.StreamResponse:
    body, status = {
        "html": ("<h1>Bad gateway</h1>", 502), "json": ('{"ok": true}', 200), "list": ("[1]", 500), "newer": ('{"code": "area.new", "detail": "New."}', 418),
        "text": ("hello", 200), "retry": ('{"code": "quota.queue_full"}', 503), "redirect": ("", 302), "odd": ('{"code": 5, "details": 7, "retry_after": "x"}', 400),
    }[request.match_info["kind"]]  # fmt: skip
    headers = {"Content-Type": "application/json", "Retry-After": "7", "Location": "/elsewhere"}
    return web.Response(text=body, status=status, headers=headers)


async def _silent(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/silent/jobs", _silent)
    app.router.add_get("/{kind}/{tail:.*}", _other_service)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    await runner.cleanup()


@pytest.mark.parametrize("kind", ["html", "json", "list", "text", "redirect"])
async def test_an_answer_that_is_not_shields_is_no_server(kind: str, stranger: str) -> None:
    async with RemoteShield(f"{stranger}/{kind}") as remote:
        with pytest.raises(ServerUnreachable, match="does not answer like a Shield server"):
            await remote.jobs(LOCAL)


async def test_a_newer_servers_error_keeps_its_name(stranger: str) -> None:
    async with RemoteShield(f"{stranger}/newer/") as remote:
        with pytest.raises(InternalError) as caught:
            await remote.jobs(LOCAL)
    assert (caught.value.message, caught.value.details) == ("New.", {"code": "area.new"})
    async with RemoteShield(f"{stranger}/odd") as remote:
        with pytest.raises(InternalError):
            await remote.jobs(LOCAL)


async def test_a_retry_after_header_counts_where_the_body_names_none(stranger: str) -> None:
    async with RemoteShield(f"{stranger}/retry") as remote:
        with pytest.raises(leaf_errors()["quota.queue_full"]) as caught:
            await remote.jobs(LOCAL)
    assert caught.value.retry_after == 7


async def test_a_server_that_keeps_silent_is_given_up(stranger: str) -> None:
    async with RemoteShield(f"{stranger}/silent", settings=ClientSettings(timeout=timedelta(seconds=0.1))) as remote:
        with pytest.raises(ServerUnreachable, match="in time"):
            await remote.jobs(LOCAL)


async def test_waiting_for_a_job_is_no_silence(app: FastAPI, stand_in: StandIn) -> None:
    class Slow(StandIn):
        async def job(self, *args: Any, wait: float = 0, **kwargs: Any) -> Any:
            await asyncio.sleep(wait)
            return await super().job(*args, wait=wait, **kwargs)

    async with (
        serving(create_app(Slow(), load())) as url,
        RemoteShield(url, settings=ClientSettings(timeout=timedelta(seconds=0.2))) as remote,
    ):
        assert await remote.job(LOCAL, JOB, wait=0.5)


async def test_a_limit_of_the_types_is_the_same_error_from_afar(remote: RemoteShield) -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        await remote.jobs(LOCAL, limit=1000)
