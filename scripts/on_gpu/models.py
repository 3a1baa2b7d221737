"""Models with expected outputs from this machine's CPU: the demo's, the benchmark's, and the user's own.

The benchmark's weights are random, and bulky at that: every `_CHANNELS`-th channel is made the same, so
that a package can be compressed to a few MB. Scales and biases stay, and 61 is no multiple of a tile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_models.catalogue import ROWS
from onnx import numpy_helper

import tvm_qat
from on_gpu.parts import Array, Case, Input, Part, array_of, drawn, repeated
from tvm_qat.bench.onnx_shapes import with_shapes
from tvm_qat.errors import MissingDependencyError, located
from tvm_qat.package import Package

DEMO = Path(tvm_qat.__file__).parent / "data/demo/digits_cnn.onnx"

_CHANNELS = 61
_LARGE = 1 << 16
"""Bytes of a constant from which it is worth repeating."""

_RANGES = {"ids": (0, 30521), "mask": (1, 1)}
"""Of BERT's inputs: words that there are, and none that is masked."""

Made = tuple[Part, bytes, dict[str, Array]]


@dataclass(frozen=True)
class Network:
    """row : of the benchmark's catalogue. batches : of these sizes, each a part."""

    row: str
    batches: tuple[int, ...]


NETWORKS = {
    "resnet50": Network("resnet50", (1, 32, 128)),
    "bert": Network("bert", (1, 32)),
    "mobilenetv2": Network("mobilenetv2", (1,)),
}


def file_of(network: str, bench: Path) -> Path:
    row = next(row for row in ROWS if row.name == NETWORKS[network].row)
    return row.files(bench)[0]


def missing(only: list[str], bench: Path) -> list[str]:
    """The networks that are wanted and have no file yet."""
    wanted = [name for name, network in NETWORKS.items() if not only or _names(name, network) & set(only)]
    return [name for name in wanted if not file_of(name, bench).exists()]


def _names(name: str, network: Network) -> set[str]:
    return {name, *(f"{name}-b{batch}" for batch in network.batches)}


def parts(target: Any, bench: Path, files: Sequence[Path]) -> Iterator[tuple[set[str], Callable[[], Made]]]:
    """Names by which a part can be asked for, and what makes it."""
    for file in (DEMO, *files):
        yield {file.stem, "models"}, lambda file=file: whole(file, target)
    for name, network in NETWORKS.items():
        for batch in network.batches:
            part = f"{name}-b{batch}"
            yield {part, name}, lambda n=name, b=batch: batched(n, file_of(n, bench), b, target)


def whole(file: Path, target: Any) -> Made:
    """A model as it is."""
    there, here = tvm_qat.compile(file, target), tvm_qat.compile(file, "native")
    inputs = tuple(drawn(_shape(info), info.dtype, k) for k, info in enumerate(here.inputs))
    outputs = list(here.run(inputs_of(inputs)).values())
    return _part(file.stem, "models", inputs, outputs, there, None)


def batched(name: str, file: Path, batch: int, target: Any) -> Made:
    """A network of the benchmark on so many inputs at once; what is expected is computed one by one."""
    if not file.exists():
        raise MissingDependencyError(located(f"{file} is not there", remedy=f"scripts/bench {name} makes it"))
    proto, here = single(file)
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as folder:
        shapes = {info.name: [batch, *_shape(info)[1:]] for info in here.inputs}
        onnx.save(proto, Path(folder, "single.onnx"))
        wanted = with_shapes(str(Path(folder, "single.onnx")), shapes, Path(folder, "batch.onnx"))
        there = tvm_qat.compile(wanted, target)
    inputs = tuple(_input(info, k, batch) for k, info in enumerate(here.inputs))
    arrays = inputs_of(inputs)
    rows = [here.run([array[i : i + 1] for array in arrays]) for i in range(batch)]
    outputs = [np.concatenate([row[info.name] for row in rows]) for info in here.outputs]
    return _part(f"{name}-b{batch}", name, inputs, outputs, there, (batch,))


@lru_cache(maxsize=1)
def single(file: Path) -> tuple[onnx.ModelProto, Package]:
    """A network of the benchmark as it is used here, and compiled for this machine, with a batch of one."""
    proto = onnx.load(file)
    repeat_weights(proto)
    free_batch(proto)
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as folder:
        onnx.save(proto, Path(folder, "single.onnx"))
        return proto, tvm_qat.compile(Path(folder, "single.onnx"), "native")


def _input(info: Any, seed: int, batch: int) -> Input:
    low, high = _RANGES.get(info.name, (None, None))
    limits = {} if low is None else {"low": low, "high": high}
    return drawn((batch, *_shape(info)[1:]), info.dtype, seed, **limits)


def _part(
    name: str, group: str, inputs: tuple[Input, ...], outputs: list[Array], there: Package,
    peer: tuple[int, ...] | None,
) -> Made:  # fmt: skip
    case = Case(name, "main", inputs, tuple(array.shape for array in outputs))
    stored = {f"0.out{k}": array for k, array in enumerate(outputs)}
    return Part(name, group, (case,), int(there.totals["macs"]), peer), there.members()["mod.so"], stored


def _shape(info: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 1 for size in info.shape)


def inputs_of(inputs: Sequence[Input]) -> list[Array]:
    return [array_of(one) for one in inputs]


def repeat_weights(proto: onnx.ModelProto) -> None:
    """Make channel `i` of each large weight what channel `i % 61` is, and so the rows of large tables."""
    axes = {
        node.input[0]: next((a.i for a in node.attribute if a.name == "axis"), 0)
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear"
    }
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes >= _LARGE and array.ndim > 1:
            axis = axes.get(tensor.name, 0)
            few = array.take(np.arange(min(_CHANNELS, array.shape[axis])), axis)
            tensor.CopyFrom(numpy_helper.from_array(repeated(few, array.shape), tensor.name))


def free_batch(proto: onnx.ModelProto) -> None:
    """Where the exporter wrote a batch of one into a Reshape, keep what comes in (0 in ONNX)."""
    constants = {
        node.output[0]: node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant"
    }
    constants |= {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            tensor = constants[node.input[1]]
            sizes = numpy_helper.to_array(tensor).copy()
            if sizes.size > 1 and sizes[0] == 1:
                sizes[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(sizes, tensor.name))
