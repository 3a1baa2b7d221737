"""Kernels of unknown sizes on TVM's CUDA runtime, whose kernels are emulated; see `gpu_machine`.

python -m tests.support.open_sizes qnn.dense      # on such a machine: says what differs
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.kernels import fused_cases
from tests.kernels.cases import CASES
from tests.kernels.harness import Case, expected, module_of
from tests.support.gpu_machine import EARLY, emulated_kernels
from tvm_qat import kernels
from tvm_qat.ir import IRModule, relax, tvm
from tvm_qat.package import build, cuda
from tvm_qat.package.target import parse_target

Array = np.ndarray[Any, Any]

FUSED = "fused"
_SIZES = (0, 1, 5, 64, 67)
"""None, one, a part of a tile, a whole one, more than one."""

_LEAST_PIXELS = 4
"""The windows of all cases lie inside of so many."""


OPEN_MODELS = {
    "micro_kws_m_static_qdq.onnx": (1960,),
    "conv_qdq_s8s8.onnx": (3, 24, 24),
    "conv_qdq_s8s8_perchannel.onnx": (3, 24, 24),
    "conv_qdq_u8u8.onnx": (3, 24, 24),
    "test_conv_follow_convtrans_s8.onnx": (3, 24, 24),
    "mnist_factorio_quantized.onnx": (25,),
}
"""Models of the corpus with an unknown batch, and the shape behind it."""


def open_cases(name: str) -> list[Case]:
    """Those of an operator, or those in composites, that have an unknown size."""
    found = [*fused_cases.conv_cases(), *fused_cases.other_cases()] if name == FUSED else CASES[name]()
    return [one for one in found if one.symbolic]


@contextmanager
def machine_for(folded: IRModule, target: Any) -> Iterator[Any]:
    """A virtual machine on the GPU; nvcc is not needed, since the driver does not look into PTX."""
    parsed, before = parse_target(target), cuda.ptx_of
    cuda.ptx_of = lambda _code, _arch: ".version 8.0"
    try:
        with tempfile.TemporaryDirectory() as folder, emulated_kernels(Path(folder)):
            lowered = kernels.finish(parsed)(kernels.lower(folded, parsed))
            yield relax.VirtualMachine(build.executable_of(lowered, parsed), tvm.cuda(0))
    finally:
        cuda.ptx_of = before


def run(function: Any, inputs: Sequence[Array]) -> list[Array]:
    given = [tvm.runtime.tensor(np.array(x, order="C"), tvm.cuda(0)) for x in inputs]
    result = function(*given)
    results = [result] if hasattr(result, "numpy") else list(result)
    return [one.numpy() for one in results]


def sizes_of(one: Case, operator: str) -> list[int]:
    windows = any(word in operator for word in ("conv", "pool", FUSED)) and one.symbolic[0][1] > 0
    return [size for size in _SIZES if not windows or size >= _LEAST_PIXELS]


def resized(one: Case, size: int) -> tuple[Array, ...]:
    """The case's inputs, cut or repeated along the unknown axes."""
    inputs = list(one.inputs)
    for which, axis in one.symbolic:
        length = inputs[which].shape[axis]
        inputs[which] = np.take(inputs[which], np.arange(size) % length, axis)
    return tuple(inputs)


def differences(operator: str, target: Any) -> list[str]:
    """Where the results of an operator's cases are not the reference's bits."""
    cases, found = open_cases(operator), []
    mod = module_of(cases)
    with machine_for(mod, target) as machine:
        for i, one in enumerate(cases):
            for size in sizes_of(one, operator):
                given = Case(one.name, one.graph, resized(one, size), one.symbolic, one.composite)
                want = expected(mod, i, given)
                for early in (False, True):
                    os.environ[EARLY] = str(int(early))
                    (have,) = run(machine[f"case{i}"], given.inputs)
                    if (have.dtype, have.shape, have.tobytes()) != (want.dtype, want.shape, want.tobytes()):
                        found.append(f"{one.name}, size {size}, early {early}: {have.shape} {want.shape}")
    print(len(cases), "cases")
    return found


if __name__ == "__main__":
    wrong = differences(sys.argv[1], {"kind": "cuda", "arch": sys.argv[2]})
    sys.exit("\n".join(wrong) or None)
