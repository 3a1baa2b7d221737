"""A small transformer encoder as ONNX with Q/DQ, whose batch and sequence are unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from tests.support.onnx_models import model, node

WIDTH, HEADS, INNER = 32, 2, 48


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Any] = {}
        self._rng = np.random.default_rng(7)

    def __call__(self, op: str, inputs: str, output: str, **attrs: Any) -> str:
        self.nodes.append(node(op, inputs, output, output, **attrs))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = value
        return name

    def quantized(self, name: str, scale: float = 0.03) -> str:
        """An activation, on uint8 and back."""
        if f"{name}_z" in self.constants:
            return f"{name}_dq"
        grid = f"{self.constant(f'{name}_s', np.float32(scale))} {self.constant(f'{name}_z', np.uint8(121))}"
        q = self("QuantizeLinear", f"{name} {grid}", f"{name}_q")
        return self("DequantizeLinear", f"{q} {grid}", f"{name}_dq")

    def dense(self, x: str, name: str, inner: int, outer: int) -> str:
        """A product with int8 weights, with its bias in float."""
        weights = self._rng.integers(-127, 128, (inner, outer)).astype(np.int8)
        scale = (self._rng.random(outer) * 0.002 + 0.001).astype(np.float32)
        grid = f"{self.constant(f'{name}_w', weights)} {self.constant(f'{name}_ws', scale)}"
        w = self("DequantizeLinear", grid, f"{name}_wdq", axis=1)
        y = self("MatMul", f"{self.quantized(x)} {w}", f"{name}_mm")
        bias = self.constant(f"{name}_b", self._rng.normal(size=outer).astype(np.float32))
        return self("Add", f"{y} {bias}", name)

    def norm(self, x: str, name: str) -> str:
        gamma, beta = self._rng.normal(size=(2, WIDTH)).astype(np.float32)
        return self(
            "LayerNormalization",
            f"{x} {self.constant(f'{name}_g', gamma)} {self.constant(f'{name}_h', beta)}",
            name,
        )


def encoder(layers: int = 1) -> ModelProto:
    """Input x: [batch, length, WIDTH] float32, output y of the same shape."""
    write, x = _Writer(), "x"
    write.constant("heads", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    write.constant("joined", np.array([0, 0, WIDTH], np.int64))
    write.constant("root", np.float32((WIDTH / HEADS) ** -0.5))
    for i in range(layers):
        x = _layer(write, x, f"l{i}_")
    write("Identity", x, "y")
    shape = ("batch", "length", WIDTH)
    return model(write.nodes, {"x": shape}, ["y"], write.constants)


def _layer(write: _Writer, x: str, at: str) -> str:
    q, k, v = (_of_head(write, write.dense(x, f"{at}{name}", WIDTH, WIDTH)) for name in "qkv")
    k = write("Transpose", k, f"{at}kt", perm=[0, 1, 3, 2])
    scores = write("MatMul", f"{write.quantized(q)} {write.quantized(k)}", f"{at}scores")
    scaled = write("Mul", f"{scores} root", f"{at}scaled")
    shares = write.quantized(write("Softmax", scaled, f"{at}shares", axis=-1), 1 / 255)
    mixed = write("MatMul", f"{shares} {write.quantized(v)}", f"{at}mixed")
    moved = write("Transpose", mixed, f"{at}moved", perm=[0, 2, 1, 3])
    joined = write("Reshape", f"{moved} joined", f"{at}joined")
    out = write.dense(joined, f"{at}out", WIDTH, WIDTH)
    x = write.norm(write("Add", f"{x} {out}", f"{at}sum"), f"{at}norm")
    wide = write("Gelu", write.dense(x, f"{at}wide", WIDTH, INNER), f"{at}gelu")
    narrow = write.dense(wide, f"{at}narrow", INNER, WIDTH)
    return write.norm(write("Add", f"{x} {narrow}", f"{at}sum2"), f"{at}norm2")


def _of_head(write: _Writer, x: str) -> str:
    split = write("Reshape", f"{x} heads", f"{x}_split")
    return write("Transpose", split, f"{x}_heads", perm=[0, 2, 1, 3])
