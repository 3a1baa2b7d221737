"""QUANTIZE, DEQUANTIZE and FAKE_QUANT: what training said, in so many words."""

from __future__ import annotations

from tvm_qat.errors import InputError
from tvm_qat.importers.tflite.node import Node
from tvm_qat.ir import Expr
from tvm_qat.qnn import build

FEWEST_BITS, MOST_BITS = 2, 16


def quantize(node: Node) -> Expr:
    """Float to a grid, or one grid to another."""
    if node.outputs[0].params is None:
        raise InputError("its result is not quantized")
    return node.result(node.real(0))


def dequantize(node: Node) -> Expr:
    """Integers, or float16, to float32."""
    if node.outputs[0].dtype != "float32" or (node.params(0) is None and node.tensor(0).dtype != "float16"):
        raise InputError("it does not turn quantized numbers into float32")
    return node.real(0)


def fake_quant(node: Node) -> Expr:
    options = node.options("FakeQuantOptions")
    low, high, bits = float(options.Min()), float(options.Max()), int(options.NumBits())
    if not FEWEST_BITS <= bits <= MOST_BITS or not low < high:
        raise InputError(f"a range from {low:g} to {high:g} in {bits} bits is impossible")
    narrow = bool(options.NarrowRange())
    return node.result(
        node.write(build.fake_quantize_range(node.real(0), low, high, bits=bits, narrow_range=narrow))
    )
