"""Completion webhooks against a real receiver: signed, retried, guarded, told of every end, at least once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shield.errors import WebhooksOff
from shield.jobs.model import FLEET, JobKind, JobRequest, Status, WorkerId
from shield.jobs.repository import JobRepository
from shield.service.webhooks import Dispatcher, delivery_of, key
from shield.settings import EgressSettings, JobSettings, Settings, WebhookSettings, load
from shield.sources.egress import EgressGuard
from tests.integration.conftest import Running

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
W = WorkerId("w")


class Receiver:
    """Takes webhooks, and answers as it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[Callable[[], Any]] = []
        self.port = 0

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        answer = self.answers.pop(0)() if self.answers else web.Response(status=204)
        if asyncio.iscoroutine(answer):
            answer = await answer
        assert isinstance(answer, web.StreamResponse)
        return answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def allow(self) -> str:
        return f"127.0.0.1/32:{self.port}"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.port = runner.addresses[0][1]
    yield receiver
    await runner.cleanup()


def settings(**changes: Any) -> WebhookSettings:
    quick = {"secret": SECRET, "timeout": 1.0, "backoff_min": timedelta(milliseconds=20), "poll": timedelta(milliseconds=20)}
    return WebhookSettings.model_validate({**quick, **changes})


def dispatcher(engine: AsyncEngine, receiver: Receiver, counts: list[str], *, allow: bool = True, **changes: Any) -> Dispatcher:
    guard = EgressGuard(EgressSettings(allow=(receiver.allow,) if allow else ()))
    return Dispatcher(engine, JobRepository(engine, JobSettings()), guard, settings(**changes), counts.append)


async def ended(engine: AsyncEngine, receiver: Receiver) -> Any:
    """A job that asked to be told, ended."""
    jobs = JobRepository(engine, JobSettings())
    spec = {"text": "x", "webhook": receiver.url}
    job = await jobs.accept(JobRequest(JobKind.INGEST, "local", uuid4(), "default", spec=spec, request_hash=uuid4().hex, runner=FLEET))
    claim = await jobs.claim(job.id, W)
    assert claim is not None
    await jobs.finish(claim, Status.COMPLETED, outcome="complete")
    return job.id


async def until_settled(sender: Dispatcher, engine: AsyncEngine, job_id: Any) -> Any:
    async with asyncio.timeout(10):
        while True:
            await sender.deliver_one()
            found = await delivery_of(engine, job_id)
            if found is not None and found.status != "pending":
                return found
            await asyncio.sleep(0.01)


async def test_the_end_is_told_with_a_signature_that_the_receiver_can_check(engine: AsyncEngine, receiver: Receiver) -> None:
    counts: list[str] = []
    job_id = await ended(engine, receiver)
    found = await until_settled(dispatcher(engine, receiver, counts), engine, job_id)
    assert (found.status, found.attempts, counts) == ("delivered", 1, ["delivered"])
    ((headers, body),) = receiver.calls
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"k" * 32, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == f"job_{job_id}"
    told = json.loads(body)
    assert told["type"] == "job.completed"
    assert told["data"]["job_id"] == str(job_id)


async def test_errors_and_silence_are_tried_again_with_the_same_id(engine: AsyncEngine, receiver: Receiver) -> None:
    counts: list[str] = []
    receiver.answers = [lambda: web.Response(status=500), _late, lambda: web.Response(status=302, headers={"Location": "/x"})]
    job_id = await ended(engine, receiver)
    found = await until_settled(dispatcher(engine, receiver, counts, timeout=0.2), engine, job_id)
    assert (found.status, found.attempts) == ("delivered", 4)
    assert counts == ["retried", "retried", "retried", "delivered"]
    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 1


@pytest.mark.parametrize(("answers", "tries", "attempts"), [([410], 8, 1), ([500, 500, 500], 3, 3)])
async def test_it_is_given_up_when_the_receiver_is_gone_or_the_tries_are_spent(
    engine: AsyncEngine, receiver: Receiver, answers: list[int], tries: int, attempts: int
) -> None:
    receiver.answers = [lambda status=status: web.Response(status=status) for status in answers]  # type: ignore[misc]
    job_id = await ended(engine, receiver)
    found = await until_settled(dispatcher(engine, receiver, [], tries=tries), engine, job_id)
    assert (found.status, found.attempts, found.code) == ("failed", attempts, "page.http_error")


async def test_a_private_address_is_refused_when_it_is_sent(engine: AsyncEngine, receiver: Receiver) -> None:
    job_id = await ended(engine, receiver)
    found = await until_settled(dispatcher(engine, receiver, [], allow=False, tries=1), engine, job_id)
    assert (found.status, found.code) == ("failed", "egress.port_denied")
    assert receiver.calls == []


async def test_a_sender_that_died_before_it_noted_the_answer_leaves_it_to_the_next(engine: AsyncEngine, receiver: Receiver) -> None:
    job_id = await ended(engine, receiver)
    first = dispatcher(engine, receiver, [])
    taken = asyncio.create_task(first.deliver_one())
    receiver.answers = [lambda: _late(30)]
    async with asyncio.timeout(5):
        while not receiver.calls:
            await asyncio.sleep(0.01)
    taken.cancel()  # as kill -9 would: nothing is noted
    await asyncio.gather(taken, return_exceptions=True)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE webhook_deliveries SET lease_until = now()"))
    found = await until_settled(dispatcher(engine, receiver, []), engine, job_id)
    assert (found.status, found.attempts) == ("delivered", 2)
    assert [headers["webhook-id"] for headers, _ in receiver.calls] == [f"job_{job_id}"] * 2


async def test_an_end_that_an_older_worker_did_not_note_is_found(engine: AsyncEngine, receiver: Receiver) -> None:
    job_id = await ended(engine, receiver)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM webhook_deliveries"))
    stop = asyncio.Event()
    running = asyncio.create_task(dispatcher(engine, receiver, []).run(stop))
    async with asyncio.timeout(5):
        while not receiver.calls:
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert (await delivery_of(engine, job_id)) is not None


async def test_through_the_whole_server_and_refused_where_there_is_no_secret(running: Running, receiver: Receiver) -> None:
    from shield.auth import LOCAL
    from shield.service.models import IngestRequest

    request = IngestRequest.model_validate({"spec": {"type": "document", "text": "The valve opens."}, "webhook": {"url": receiver.url}})
    async with running(webhook=settings().model_dump(), egress={"allow": (receiver.allow,)}) as app:
        job = await app.shield.ingest(LOCAL, request)
        assert job.webhook is not None
        async with asyncio.timeout(30):
            while (found := await app.shield.job(LOCAL, job.job_id)).webhook is None or found.webhook.status == "pending":
                await asyncio.sleep(0.1)
        assert found.webhook.status == "delivered"
        assert len(receiver.calls) == 1
    async with running() as app:
        with pytest.raises(WebhooksOff):
            await app.shield.ingest(LOCAL, request)


def test_a_short_secret_is_refused_and_a_plain_one_is_its_own_key(settings: Settings) -> None:
    assert key(SECRET) == b"k" * 32
    assert key("plain" * 8) == b"plain" * 8
    from shield.errors import ConfigInvalid

    with pytest.raises(ConfigInvalid, match="SHIELD_WEBHOOK_SECRET"):
        load(webhook={"secret": "short"})


async def _late(seconds: float = 5) -> web.Response:
    await asyncio.sleep(seconds)
    return web.Response()
