"""Encodings as AIMET writes them, and an onnxruntime simulation of what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.support.onnx_models import with_output_types
from tests.support.run import onnxruntime_outputs

VERSIONS = ("0.5.0", "0.6.1", "1.0.0", "2.0.0")


@dataclass(frozen=True)
class Grid:
    """real = scale * (u + offset), u = 0 .. 2^bits - 1 (one less if strict); AIMET's own terms."""

    scale: tuple[float, ...]
    offset: tuple[int, ...]
    bits: int = 8
    symmetric: bool = False
    axis: int | None = None
    param: bool = False

    @property
    def strict(self) -> bool:
        return self.symmetric and self.offset[0] == 1 - (1 << self.bits - 1)

    @property
    def steps(self) -> int:
        return (1 << self.bits) - 1 - self.strict

    def fake_quantized(self, x: np.ndarray) -> np.ndarray:
        """What AIMET's simulation computes: clamp(round(x / scale) - offset) + offset, times scale."""
        shape = [-1 if i == self.axis else 1 for i in range(x.ndim)]
        scale = np.asarray(self.scale, np.float32).reshape(shape if self.axis is not None else ())
        offset = np.asarray(self.offset, np.float32).reshape(shape if self.axis is not None else ())
        u = np.clip(np.rint(x / scale) - offset, 0, self.steps)
        return ((u + offset) * scale).astype(np.float32)


def asymmetric(low: float, high: float, bits: int = 8) -> Grid:
    scale = float(np.float32((high - low) / ((1 << bits) - 1)))
    return Grid((scale,), (round(low / scale),), bits)


def symmetric(reach: float, bits: int = 8, *, strict: bool = False, unsigned: bool = False) -> Grid:
    half = 1 << bits - 1
    offset = 0 if unsigned else 1 - half if strict else -half
    scale = float(np.float32(reach / ((1 << bits) - 1 if unsigned else half - 1)))
    return Grid((scale,), (offset,), bits, True)


def of_weight(w: np.ndarray, axis: int | None, bits: int = 8, *, strict: bool = False) -> Grid:
    """Symmetric, by the greatest magnitude of each channel (of all if axis is None)."""
    half = 1 << bits - 1
    others = None if axis is None else tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    scale = (np.abs(w).max(axis=others) / (half - 1)).astype(np.float32).reshape(-1)
    offset = (1 - half if strict else -half,) * scale.size
    return Grid(tuple(map(float, scale)), offset, bits, True, None if axis is None else axis % w.ndim, True)


def document(
    version: str, grids: Mapping[str, Grid], floats: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """floats: names of tensors that stay in float, with their bits."""
    floats = dict(floats or {})
    if version == "2.0.0":
        return {"version": version, "encodings": [_zero_points(name, grid) for name, grid in grids.items()]}
    entry = _offsets if version == "1.0.0" else _channels
    groups: dict[str, Any] = {}
    for key, param in (("activation_encodings", False), ("param_encodings", True)):
        found = {name: entry(grid) for name, grid in grids.items() if grid.param == param}
        if not param:
            found |= {name: _in_float(version, bits) for name, bits in floats.items()}
        named = [{"name": name, **one} for name, one in found.items()] if version == "1.0.0" else found
        groups[key] = named
    extra = {"quantizer_args": {"activation_bitwidth": 8, "dtype": "int"}} if version != "0.5.0" else {}
    return {"version": version, **groups, **extra}


def _in_float(version: str, bits: int) -> Any:
    if version == "1.0.0":
        return {"enc_type": "PER_TENSOR", "dtype": "FLOAT", "bw": bits}
    return [{"bitwidth": bits, "dtype": "float"}]


def _channels(grid: Grid) -> list[dict[str, Any]]:
    return [
        {
            "bitwidth": grid.bits, "dtype": "int", "is_symmetric": str(grid.symmetric), "scale": scale,
            "offset": offset, "min": scale * offset, "max": scale * (offset + grid.steps),
        }
        for scale, offset in zip(grid.scale, grid.offset, strict=True)
    ]  # fmt: skip


def _offsets(grid: Grid) -> dict[str, Any]:
    return {
        "enc_type": "PER_TENSOR" if grid.axis is None else "PER_CHANNEL", "dtype": "INT", "bw": grid.bits,
        "is_sym": grid.symmetric, "scale": list(grid.scale), "offset": [float(o) for o in grid.offset],
    }  # fmt: skip


def _zero_points(name: str, grid: Grid) -> dict[str, Any]:
    signed = grid.symmetric and grid.offset[0] != 0
    zero_point = [-o - ((1 << grid.bits - 1) if signed else 0) for o in grid.offset]
    per_tensor = grid.axis is None
    entry: dict[str, Any] = {
        "name": name,
        "output_dtype": f"{'' if signed else 'u'}int{grid.bits}",
        "y_scale": grid.scale[0] if per_tensor else list(grid.scale),
    }
    if any(zero_point):
        entry["y_zero_point"] = zero_point[0] if per_tensor else zero_point
    return entry if per_tensor else {**entry, "axis": grid.axis}


def written(folder: Path, content: Any) -> Path:
    path = folder / "model.encodings"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def simulation(model: ModelProto, grids: Mapping[str, Grid]) -> ModelProto:
    """The float model with Div, Round, Sub, Clip, Add, Mul behind every tensor that has a grid."""
    made = ModelProto()
    made.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    nodes = []
    renamed = {}
    for name, grid in grids.items():
        if name in stored:
            values = grid.fake_quantized(numpy_helper.to_array(stored[name]))
            stored[name].CopyFrom(numpy_helper.from_array(values, name))
        elif name in {value.name for value in made.graph.input}:
            renamed[name] = f"{name}__q"
            nodes += _chain(made, grid, name, renamed[name])
    for node in made.graph.node:
        copy = helper.make_node(node.op_type, [renamed.get(n, n) for n in node.input], list(node.output))
        copy.attribute.extend(node.attribute)
        nodes.append(copy)
        for index, name in enumerate(node.output):
            if name in grids:
                copy.output[index] = f"{name}__raw"
                nodes += _chain(made, grids[name], f"{name}__raw", name)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _chain(made: ModelProto, grid: Grid, source: str, target: str) -> list[Any]:
    assert grid.axis is None
    numbers = {"scale": grid.scale[0], "offset": grid.offset[0], "low": 0, "high": grid.steps}
    for key, value in numbers.items():
        made.graph.initializer.append(helper.make_tensor(f"{target}.{key}", TensorProto.FLOAT, (), [value]))
    steps = [
        ("Div", "scale"), ("Round", ""), ("Sub", "offset"), ("Clip", "low high"), ("Add", "offset"),
        ("Mul", "scale"),
    ]  # fmt: skip
    names = [source, *(f"{target}.{i}" for i in range(len(steps) - 1)), target]
    return [
        helper.make_node(op, [before, *(f"{target}.{key}" for key in keys.split())], [after])
        for (op, keys), before, after in zip(steps, names[:-1], names[1:], strict=True)
    ]


def simulated(
    model: ModelProto, grids: Mapping[str, Grid], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    return onnxruntime_outputs(with_output_types(simulation(model, grids)), inputs)


def differences(found: np.ndarray, expected: np.ndarray, scale: Sequence[float]) -> tuple[int, float]:
    """(greatest difference in steps, share of elements that differ)."""
    steps = np.rint(np.abs(found - expected) / np.float32(scale[0]))
    return int(steps.max()), float((steps > 0).mean())
