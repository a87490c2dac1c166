"""A whole system, saved while it runs and brought back on another machine: the same fingerprint, the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
from pathlib import Path

import pytest

from shield.app.embedded import EmbeddedApp
from shield.auth import LOCAL
from shield.cli.app import run
from shield.service.models import Answer, IngestRequest, JobView, QueryRequest, RebuildRequest
from shield.settings import Settings
from tests.integration.conftest import Running
from tests.integration.knowledge.questions import ANSWERABLE, CORPUS

QUESTIONS = [question for question, _ in ANSWERABLE][:20]
DOCUMENTS = dict(list(CORPUS.items())[:10])


async def test_a_restored_system_has_the_same_hash_and_gives_the_same_answers(
    running: Running, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = str(tmp_path / "backup")
    async with running() as app:
        specs = [{"type": "document", "text": text, "source": name} for name, text in DOCUMENTS.items()]
        jobs = [await app.shield.ingest(LOCAL, IngestRequest.model_validate({"spec": spec})) for spec in specs]
        for job in jobs:
            await ended(app, job)
        before = await known(app)
        assert await command(settings, monkeypatch, "backup", backup) == 0
        assert await command(settings, monkeypatch, "restore", backup, "--force") == 75  # somebody serves on it
    assert await command(settings, monkeypatch, "restore", backup) == 12  # it is full
    assert await command(settings, monkeypatch, "restore", backup, "--check") == 0

    elsewhere = settings.model_copy(update={"data_dir": settings.data_dir.with_name(f"{settings.data_dir.name}r")})
    try:
        assert await command(elsewhere, monkeypatch, "restore", backup) == 0
        async with running(data_dir=elsewhere.data_dir) as app:
            assert (await app.shield.knowledge_base_hash(LOCAL, "default")).hash != before[0]  # no vectors yet
            await ended(app, await app.shield.rebuild_knowledge_base(LOCAL, "default", RebuildRequest()))
            after = await known(app)
        assert after[0] == before[0]
        for question, one, other in zip(QUESTIONS, before[1], after[1], strict=True):
            assert one == other, question
        assert sum(answer.found and bool(answer.entities) for answer in after[1]) >= 8
    finally:
        shutil.rmtree(elsewhere.data_dir, ignore_errors=True)


async def known(app: EmbeddedApp) -> tuple[str, list[Answer]]:
    """The fingerprint, and what twenty questions get from passages and graph: text, quotes, scores, entities."""
    answers = [await app.shield.query(LOCAL, QueryRequest(query=question, mode="mix")) for question in QUESTIONS]
    return (await app.shield.knowledge_base_hash(LOCAL, "default")).hash, answers


async def ended(app: EmbeddedApp, job: JobView) -> None:
    async with asyncio.timeout(60):
        while job.finished_at is None:
            job = await app.shield.job(LOCAL, job.job_id, wait=5)
    assert (job.status, job.outcome) == ("completed", "complete"), job


async def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`shield db ...` on a data directory; its exit code."""
    monkeypatch.setenv("SHIELD_DATA_DIR", str(settings.data_dir))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return await asyncio.to_thread(run, ["db", *arguments])
