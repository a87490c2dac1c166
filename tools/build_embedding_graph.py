"""Builds the committed ONNX graph of the embedding model (`src/shield/knowledge/embedding/minilm.onnx`).

The graph is all-MiniLM-L6-v2 (BERT with 6 layers of 384, then the mean over unmasked tokens, then unit length) and holds no
weights: each is declared as external data under its name in the published safetensors file, and is handed over at load.
So 24 KB live in the repository, and the 90 MB come from a pinned, hash-checked package.

    tools/run python tools/build_embedding_graph.py           # writes the file
    tools/run python tools/build_embedding_graph.py --check   # exit code 1 if the committed file differs

Needs `onnx` (a development dependency only).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).resolve().parent.parent / "src/shield/knowledge/embedding/minilm.onnx"
VOCABULARY, POSITIONS, LAYERS, HIDDEN, HEADS, FEED_FORWARD = 30522, 512, 6, 384, 12, 1536


class Graph:
    """Collects nodes, constants and external weights; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node with one output."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def const(self, value: Any) -> str:
        """A constant that lives in the file."""
        name = f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A weight that comes at load."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        place = tensor.external_data.add()
        place.key, place.value = "location", "model.safetensors"
        self.initializers.append(tensor)
        return name

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation."""
        return self.op(
            "LayerNormalization", x, self.weight(f"{name}.weight", HIDDEN), self.weight(f"{name}.bias", HIDDEN), axis=-1, epsilon=1e-12
        )

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """A dense layer; PyTorch stores its matrix transposed."""
        matrix = self.op("Transpose", self.weight(f"{name}.weight", outputs, inputs), perm=[1, 0])
        return self.op("Add", self.op("MatMul", x, matrix), self.weight(f"{name}.bias", outputs))

    def embeddings(self) -> str:
        """Word + position + token type, normalised."""
        zero, one = self.const(np.int64(0)), self.const(np.int64(1))
        length = self.op("Gather", self.op("Shape", "input_ids"), one, axis=0)
        positions = self.op("Range", zero, length, one)
        words = self.op("Gather", self.weight("embeddings.word_embeddings.weight", VOCABULARY, HIDDEN), "input_ids", axis=0)
        places = self.op("Gather", self.weight("embeddings.position_embeddings.weight", POSITIONS, HIDDEN), positions, axis=0)
        kind = self.op("Gather", self.weight("embeddings.token_type_embeddings.weight", 2, HIDDEN), zero, axis=0)
        return self.norm(self.op("Add", self.op("Add", words, places), kind), "embeddings.LayerNorm")

    def layer(self, x: str, number: int, bias: str, shapes: dict[str, str]) -> str:
        """Self-attention and feed-forward, each with its residual."""
        name = f"encoder.layer.{number}"

        def heads(part: str) -> str:
            split = self.op("Reshape", self.linear(x, f"{name}.attention.self.{part}", HIDDEN, HIDDEN), shapes["heads"])
            return self.op("Transpose", split, perm=[0, 2, 1, 3])

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = self.op("Mul", self.op("MatMul", query, self.op("Transpose", key, perm=[0, 1, 3, 2])), shapes["scale"])
        weights = self.op("Softmax", self.op("Add", scores, bias), axis=-1)
        mixed = self.op("Reshape", self.op("Transpose", self.op("MatMul", weights, value), perm=[0, 2, 1, 3]), shapes["joined"])
        attended = self.linear(mixed, f"{name}.attention.output.dense", HIDDEN, HIDDEN)
        x = self.norm(self.op("Add", attended, x), f"{name}.attention.output.LayerNorm")
        inner = self.op("Gelu", self.linear(x, f"{name}.intermediate.dense", HIDDEN, FEED_FORWARD))
        return self.norm(self.op("Add", self.linear(inner, f"{name}.output.dense", FEED_FORWARD, HIDDEN), x), f"{name}.output.LayerNorm")

    def pool(self, x: str, mask: str) -> None:
        """Mean over unmasked tokens, then unit length, as output `embedding`."""
        axis, column = self.const(np.array([1])), self.op("Unsqueeze", mask, self.const(np.array([2])))
        total = self.op("ReduceSum", self.op("Mul", x, column), axis, keepdims=0)
        tokens = self.op("Clip", self.op("ReduceSum", column, axis, keepdims=0), self.const(np.float32(1e-9)))
        mean = self.op("Div", total, tokens)
        length = self.op("Clip", self.op("ReduceL2", mean, axis, keepdims=1), self.const(np.float32(1e-12)))
        self.op("Div", mean, length, output="embedding")


def build() -> bytes:
    """The serialised model: int64 `input_ids` and `attention_mask` [batch, tokens] to float32 `embedding` [batch, 384]."""
    graph = Graph()
    x = graph.embeddings()
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.op("Sub", graph.const(np.float32(1)), graph.op("Unsqueeze", mask, graph.const(np.array([1, 2]))))
    bias = graph.op("Mul", hidden, graph.const(np.float32(-1e4)))
    shapes = {
        "heads": graph.const(np.array([0, 0, HEADS, HIDDEN // HEADS])),
        "joined": graph.const(np.array([0, 0, HIDDEN])),
        "scale": graph.const(np.float32((HIDDEN // HEADS) ** -0.5)),
    }
    for number in range(LAYERS):
        x = graph.layer(x, number, bias, shapes)
    graph.pool(x, mask)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])
    body = helper.make_graph(graph.nodes, "all-minilm-l6-v2", inputs, [output], graph.initializers)
    model: onnx.ModelProto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString(deterministic=True))


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description="Build the committed ONNX graph of the embedding model.")
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    made = build()
    if parser.parse_args().check:
        same = TARGET.is_file() and TARGET.read_bytes() == made
        print(f"{TARGET.name}: {'up to date' if same else 'differs: run tools/build_embedding_graph.py'}")
        return 0 if same else 1
    TARGET.write_bytes(made)
    print(f"{TARGET.name}: {len(made)} bytes written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
