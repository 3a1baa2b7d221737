"""Operator -> converter: (node) -> expression, array, or a list of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm_qat.importers.tensorflow import conv, elementwise, fake_quant, movement, pool, reduce, space
from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import relax

_op = relax.op

_UNARY = {
    "Relu": _op.nn.relu, "Relu6": _op.nn.relu6, "Selu": _op.nn.selu, "Sigmoid": _op.sigmoid,
    "Tanh": _op.tanh, "Exp": _op.exp, "Log": _op.log, "Sqrt": _op.sqrt, "Rsqrt": _op.rsqrt,
    "Square": _op.square, "Erf": _op.erf, "Abs": _op.abs, "Neg": _op.negative, "Floor": _op.floor,
    "Ceil": _op.ceil, "Round": _op.round, "Rint": _op.round, "Sin": _op.sin, "Cos": _op.cos,
    "Sign": _op.sign, "LogicalNot": _op.logical_not,
}  # fmt: skip
_BINARY = {
    "Add": _op.add, "AddV2": _op.add, "Sub": _op.subtract, "Mul": _op.multiply, "RealDiv": _op.divide,
    "Maximum": _op.maximum, "Minimum": _op.minimum, "Pow": _op.power, "Greater": _op.greater,
    "GreaterEqual": _op.greater_equal, "Less": _op.less, "LessEqual": _op.less_equal,
    "Equal": _op.equal, "NotEqual": _op.not_equal, "LogicalAnd": _op.logical_and,
    "LogicalOr": _op.logical_or, "FloorDiv": _op.floor_divide, "FloorMod": _op.floor_mod,
}  # fmt: skip


def _itself(node: Node) -> Any:
    return node.value(0)


def _themselves(node: Node) -> Any:
    return list(node.inputs)


_NO_WORK = ("Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape")
"""What is there for training or for checking: the value goes through."""

CONVERTERS: dict[str, Callable[[Node], Any]] = {
    **{name: elementwise.unary(function) for name, function in _UNARY.items()},
    **{name: elementwise.binary(function) for name, function in _BINARY.items()},
    **dict.fromkeys(_NO_WORK, _itself),
    "IdentityN": _themselves,
    "FakeQuantWithMinMaxArgs": fake_quant.args,
    "FakeQuantWithMinMaxVars": fake_quant.variables,
    "FakeQuantWithMinMaxVarsPerChannel": fake_quant.per_channel,
    "Conv2D": conv.conv2d,
    "DepthwiseConv2dNative": conv.depthwise,
    "Conv2DBackpropInput": conv.transposed,
    "SpaceToBatchND": conv.space_to_batch,
    "BatchToSpaceND": conv.batch_to_space,
    "BiasAdd": conv.bias_add,
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), conv.batch_norm),
    "MaxPool": pool.max_pool,
    "AvgPool": pool.average_pool,
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), elementwise.matmul),
    "Einsum": elementwise.einsum,
    "AddN": elementwise.add_all,
    "LeakyRelu": elementwise.leaky_relu,
    "Elu": elementwise.elu,
    "Erfc": elementwise.erfc,
    "Softplus": elementwise.softplus,
    "Softmax": elementwise.softmax,
    "LogSoftmax": elementwise.log_softmax,
    "SquaredDifference": elementwise.squared_difference,
    **dict.fromkeys(("Reciprocal", "Inv"), elementwise.reciprocal),
    "SelectV2": elementwise.select,
    "Cast": elementwise.cast,
    "Mean": reduce.over_axes(_op.mean),
    "Sum": reduce.over_axes(_op.sum),
    "Max": reduce.over_axes(_op.max),
    "Min": reduce.over_axes(_op.min),
    "ArgMax": reduce.extreme(_op.argmax),
    "ArgMin": reduce.extreme(_op.argmin),
    "Shape": movement.shape,
    "ShapeN": movement.shapes,
    "Rank": movement.rank,
    "Size": movement.size,
    "ZerosLike": movement.filled(0),
    "OnesLike": movement.filled(1),
    "Reshape": movement.reshape,
    "Squeeze": movement.squeeze,
    "ExpandDims": movement.expand_dims,
    "Transpose": movement.transpose,
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), movement.pad),
    **dict.fromkeys(("Concat", "ConcatV2"), movement.concat),
    **dict.fromkeys(("Split", "SplitV"), movement.split),
    "StridedSlice": movement.strided_slice,
    "Slice": movement.slice_,
    "Pack": movement.pack,
    "Unpack": movement.unpack,
    **dict.fromkeys(("Gather", "GatherV2"), movement.gather),
    "Tile": movement.tile,
    "BroadcastTo": movement.broadcast,
    "SpaceToDepth": space.space_to_depth,
    "DepthToSpace": space.depth_to_space,
    "ResizeBilinear": space.resize("linear"),
    "ResizeNearestNeighbor": space.resize("nearest_neighbor"),
}

_BATCH_NORM = ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3")

OUTPUTS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _BATCH_NORM
)
"""Names of results, of operators with more than one name: functions refer to them by these."""
