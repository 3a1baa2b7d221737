"""Operator -> converter. To add one: its function, its row here.

A converter takes a Node and returns its result as it is stored, or a list of them. It raises
InputError or UnsupportedError with the reason alone: the walk adds file and operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tvm_qat.importers.tflite import elementwise, linear, lstm, movement, pool, quantize, reduce, resize
from tvm_qat.importers.tflite.elementwise import activation, binary, comparison, unary
from tvm_qat.importers.tflite.node import Node
from tvm_qat.ir import Expr, relax

Converter: TypeAlias = Callable[[Node], Expr | list[Expr]]

_op = relax.op

TABLE: dict[str, Converter] = {
    "ABS": unary(_op.abs),
    "ADD": binary(_op.add, "AddOptions"),
    "ADD_N": elementwise.add_n,
    "ARG_MAX": reduce.extreme(_op.argmax, "ArgMaxOptions"),
    "ARG_MIN": reduce.extreme(_op.argmin, "ArgMinOptions"),
    "AVERAGE_POOL_2D": pool.average_pool_2d,
    "BATCH_MATMUL": linear.batch_matmul,
    "BROADCAST_TO": movement.broadcast_to,
    "CAST": elementwise.cast,
    "CEIL": unary(_op.ceil),
    "CONCATENATION": movement.concatenation,
    "CONV_2D": linear.conv_2d,
    "COS": unary(_op.cos),
    "DEPTHWISE_CONV_2D": linear.depthwise_conv_2d,
    "DEPTH_TO_SPACE": movement.depth_to_space,
    "DEQUANTIZE": quantize.dequantize,
    "DIV": binary(_op.divide, "DivOptions"),
    "ELU": elementwise.elu,
    "EQUAL": comparison(_op.equal),
    "EXP": unary(_op.exp),
    "EXPAND_DIMS": movement.expand_dims,
    "FAKE_QUANT": quantize.fake_quant,
    "FLOOR": unary(_op.floor),
    "FULLY_CONNECTED": linear.fully_connected,
    "GATHER": movement.gather,
    "GELU": elementwise.gelu,
    "GREATER": comparison(_op.greater),
    "GREATER_EQUAL": comparison(_op.greater_equal),
    "HARD_SWISH": elementwise.hard_swish,
    "L2_NORMALIZATION": reduce.l2_normalization,
    "LEAKY_RELU": elementwise.leaky_relu,
    "LESS": comparison(_op.less),
    "LESS_EQUAL": comparison(_op.less_equal),
    "LOG": unary(_op.log),
    "LOGISTIC": unary(_op.sigmoid),
    "LOG_SOFTMAX": reduce.log_softmax,
    "MAXIMUM": binary(_op.maximum),
    "MAX_POOL_2D": pool.max_pool_2d,
    "MEAN": reduce.reduction(_op.mean),
    "MINIMUM": binary(_op.minimum),
    "MIRROR_PAD": movement.mirror_pad,
    "MUL": binary(_op.multiply, "MulOptions"),
    "NEG": unary(_op.negative),
    "NOT_EQUAL": comparison(_op.not_equal),
    "PACK": movement.pack,
    "PAD": movement.pad,
    "PADV2": movement.pad,
    "POW": binary(_op.power),
    "PRELU": elementwise.prelu,
    "QUANTIZE": quantize.quantize,
    "REDUCE_MAX": reduce.reduction(_op.max),
    "REDUCE_MIN": reduce.reduction(_op.min),
    "RELU": activation(1),
    "RELU6": activation(3),
    "RELU_0_TO_1": elementwise.relu_0_to_1,
    "RELU_N1_TO_1": activation(2),
    "RESHAPE": movement.reshape,
    "RESIZE_BILINEAR": resize.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize.resize_nearest_neighbor,
    "REVERSE_V2": movement.reverse,
    "ROUND": unary(_op.round),
    "RSQRT": unary(_op.rsqrt),
    "SELECT_V2": elementwise.select,
    "SHAPE": movement.shape_of_data,
    "SIN": unary(_op.sin),
    "SLICE": movement.slice_,
    "SOFTMAX": reduce.softmax,
    "SPACE_TO_DEPTH": movement.space_to_depth,
    "SPLIT": movement.split,
    "SPLIT_V": movement.split_v,
    "SQRT": unary(_op.sqrt),
    "SQUARE": unary(_op.square),
    "SQUARED_DIFFERENCE": elementwise.squared_difference,
    "SQUEEZE": movement.squeeze,
    "STRIDED_SLICE": movement.strided_slice,
    "SUB": binary(_op.subtract, "SubOptions"),
    "SUM": reduce.reduction(_op.sum),
    "TANH": unary(_op.tanh),
    "TILE": movement.tile,
    "TRANSPOSE": movement.transpose,
    "TRANSPOSE_CONV": linear.transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm.unidirectional_sequence_lstm,
    "UNPACK": movement.unpack,
}
