"""Every operator of the table against TensorFlow itself, on random data."""

from __future__ import annotations

import numpy as np
import pytest

from tests.importers.frameworks.tensorflow_support import evaluated, function, spec, tf
from tvm_qat.importers.tensorflow.table import CONVERTERS

raw = tf.raw_ops
RNG = np.random.default_rng(3)
W = RNG.normal(size=(3, 3, 4, 5)).astype(np.float32)
DW = RNG.normal(size=(3, 3, 4, 2)).astype(np.float32)
V5, V4 = RNG.normal(size=5).astype(np.float32), RNG.uniform(0.5, 2, 4).astype(np.float32)


def conv(x, **attrs):
    return raw.Conv2D(input=x, filter=W, **attrs)


def batch_norm(x):
    made = raw.FusedBatchNormV3(x=x, scale=V4, offset=V4, mean=V4, variance=V4, is_training=False)
    return made.y


def dilated(x, crops):
    spaced = tf.raw_ops.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[2, 3], [2, 2]])
    made = raw.Conv2D(input=spaced, filter=W, strides=[1, 1, 1, 1], padding="VALID")
    return raw.BatchToSpaceND(input=made, block_shape=[2, 2], crops=crops)


def transposed(x, size, padding, strides=2):
    sizes = tf.stack([tf.shape(x)[0], size, size + 2, 6])
    weight = W.reshape(3, 3, 5, 4)[:, :, :3].repeat(2, axis=2)
    return raw.Conv2DBackpropInput(
        input_sizes=sizes, filter=weight, out_backprop=x, strides=[1, strides, strides, 1], padding=padding
    )


IMAGES = {
    "Conv2D valid": lambda x: conv(x, strides=[1, 1, 1, 1], padding="VALID"),
    "Conv2D same": lambda x: conv(x, strides=[1, 1, 1, 1], padding="SAME"),
    "Conv2D same, strides": lambda x: conv(x, strides=[1, 2, 3, 1], padding="SAME"),
    "Conv2D same, dilated": lambda x: conv(x, strides=[1] * 4, padding="SAME", dilations=[1, 2, 1, 1]),
    "Conv2D explicit": lambda x: conv(
        x, strides=[1] * 4, padding="EXPLICIT", explicit_paddings=[0, 0, 1, 0, 2, 1, 0, 0]
    ),
    "Conv2D groups": lambda x: raw.Conv2D(input=x, filter=W[:, :, :2, :4], strides=[1] * 4, padding="SAME"),
    "Depthwise": lambda x: raw.DepthwiseConv2dNative(
        input=x, filter=DW, strides=[1, 2, 2, 1], padding="SAME"
    ),
    "SpaceToBatchND": lambda x: dilated(x, [[0, 1], [0, 0]]),
    "SpaceToBatchND cut": lambda x: dilated(x, [[3, 0], [0, 2]]),
    "Transposed same": lambda x: transposed(x, 14, "SAME"),
    "Transposed valid": lambda x: transposed(x, 15, "VALID"),
    "Transposed same odd": lambda x: transposed(x, 13, "SAME"),
    "BiasAdd": lambda x: raw.BiasAdd(value=x, bias=V4),
    "FusedBatchNormV3": batch_norm,
    "MaxPool same": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "MaxPool valid": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "AvgPool same": lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"),
    "AvgPool valid": lambda x: tf.nn.avg_pool2d(x, [1, 3], [2, 1], "VALID"),
    "Mean": lambda x: tf.reduce_mean(x, [1, 2]),
    "Mean kept": lambda x: tf.reduce_mean(x, [-1], keepdims=True),
    "Sum Max Min": lambda x: tf.reduce_sum(x, 1) + tf.reduce_max(x, 1) - tf.reduce_min(x, 1),
    "Flatten": lambda x: tf.reshape(x, [-1, 7 * 8 * 4]),
    "Reshape by Shape": lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], -1, 4])),
    "Reshape by products": lambda x: tf.reshape(
        x, tf.concat([tf.shape(x)[:2], [tf.reduce_prod(tf.shape(x)[2:])]], 0)
    ),
    "Reshape of batch": lambda x: tf.reshape(x, [tf.shape(x)[0] * 7, 8, 4]),
    "Squeeze ExpandDims": lambda x: tf.squeeze(tf.expand_dims(x, 1), [1]),
    "Transpose": lambda x: tf.transpose(x, [0, 3, 1, 2]),
    "Pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "PadV2": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=1.5),
    "MirrorPad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], "REFLECT"),
    "Concat": lambda x: tf.concat([x, 2 * x, x], -1),
    "Split": lambda x: tf.concat(tf.split(x, 2, 3)[::-1], 3),
    "SplitV": lambda x: tf.concat(tf.split(x, [1, 3, -1], 2)[::-1], 2),
    "StridedSlice": lambda x: x[:, 1:-1:2, tf.newaxis, ..., 2],
    "StridedSlice ends": lambda x: x[..., -3:, :],
    "StridedSlice one": lambda x: x[:, 3],
    "Slice": lambda x: tf.slice(x, [0, 1, 2, 0], [-1, 3, -1, 4]),
    "Pack Unpack": lambda x: tf.stack(tf.unstack(x, axis=3)[::-1], axis=1),
    "Gather": lambda x: tf.gather(x, [3, 0, 0], axis=3),
    "Tile": lambda x: tf.tile(x, [1, 2, 1, 3]),
    "BroadcastTo": lambda x: tf.broadcast_to(x[:, :1], tf.shape(x)),
    "SpaceToDepth": lambda x: tf.nn.space_to_depth(x[:, :6], 2),
    "DepthToSpace": lambda x: tf.nn.depth_to_space(x, 2),
    "ArgMax": lambda x: tf.argmax(x, -1),
    "ArgMin": lambda x: tf.argmin(x, 1, tf.int32),
    "Cast": lambda x: tf.cast(tf.cast(4 * x, tf.int32), tf.float32),
    "Identities": lambda x: tf.debugging.check_numerics(tf.stop_gradient(tf.identity_n([x, x])[1]), "x"),
    "Assert": lambda x: [tf.debugging.assert_rank(x, 4), tf.debugging.Assert(True, [x]), tf.identity(x)][2],
    "Resize nearest": lambda x: raw.ResizeNearestNeighbor(images=x, size=[14, 11]),
    "Resize nearest, centres": lambda x: raw.ResizeNearestNeighbor(
        images=x, size=[14, 24], half_pixel_centers=True
    ),
    "Resize linear": lambda x: raw.ResizeBilinear(images=x, size=[14, 11]),
    "Resize linear, centres": lambda x: raw.ResizeBilinear(images=x, size=[5, 16], half_pixel_centers=True),
    "Resize linear, corners": lambda x: raw.ResizeBilinear(images=x, size=[13, 15], align_corners=True),
}
UNARY = ("abs", "exp", "erf", "sigmoid", "tanh", "softplus", "square", "negative", "floor")
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "selu", "softmax", "log_softmax", "gelu", "silu")


def applied(module, name: str, positive: bool = False):
    run = getattr(module, name)
    return (lambda x: run(tf.abs(x) + 0.1)) if positive else run


MATRICES = {
    **{name: applied(tf.math, name) for name in UNARY},
    **{name: applied(tf.math, name, positive=True) for name in ("log", "sqrt", "rsqrt", "reciprocal")},
    **{name: applied(tf.nn, name) for name in ACTIVATIONS},
    "binary": lambda x: tf.minimum(tf.maximum(x, 2 * x - 1), x / (tf.abs(x) + 1)) + tf.pow(tf.abs(x), 1.5),
    "squared difference": lambda x: tf.math.squared_difference(x, V4),
    "AddN": lambda x: tf.add_n([x, x, 3 * x]),
    "select": lambda x: tf.where(tf.logical_and(x > 0, x <= 1), x, -x),
    "round": lambda x: tf.round(x * 3),
    "MatMul": lambda x: tf.matmul(x, W[0, 0]),
    "MatMul transposed": lambda x: tf.matmul(x, W[0, 0].T.copy(), transpose_b=True),
    "BatchMatMul": lambda x: tf.matmul(x[:, tf.newaxis], x[:, tf.newaxis], adjoint_b=True),
    "Einsum": lambda x: tf.einsum("nc,cd->nd", x, W[0, 0]),
    "dense": lambda x: tf.nn.bias_add(tf.matmul(x, W[0, 0]), V5),
    "folded": lambda x: x * (tf.constant(V4) * tf.math.rsqrt(tf.constant(V4) + 1e-3)),
    "shape as data": lambda x: x * tf.cast(tf.shape(x)[1], tf.float32),
    "range": lambda x: x + tf.cast(tf.range(4), tf.float32) + tf.fill([4], 2.0) + tf.ones([1, 4]),
}


def check(body, shape: tuple[int, ...], tolerance: float = 1e-5) -> None:
    x = RNG.normal(size=shape).astype(np.float32)
    concrete = function(body, spec(None, *shape[1:]))
    expected = np.asarray(concrete(tf.constant(x)))
    (got,) = evaluated(concrete, {"x": x})
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", IMAGES)
def test_on_images(name: str):
    check(IMAGES[name], (2, 7, 8, 4))


@pytest.mark.parametrize("name", MATRICES)
def test_on_matrices(name: str):
    check(MATRICES[name], (6, 4))


def test_embedding_and_attention():
    table = RNG.normal(size=(20, 8)).astype(np.float32)

    def body(ids):
        x = tf.gather(table, ids)
        heads = tf.transpose(tf.reshape(x, [-1, 5, 2, 4]), [0, 2, 1, 3])
        scores = tf.nn.softmax(tf.matmul(heads, heads, transpose_b=True) / 2.0)
        mixed = tf.transpose(tf.matmul(scores, heads), [0, 2, 1, 3])
        return tf.reshape(mixed, tf.shape(x))

    concrete = function(body, spec(None, 5, dtype="int32", name="ids"))
    ids = RNG.integers(0, 20, (3, 5)).astype(np.int32)
    (got,) = evaluated(concrete, {"ids": ids})
    np.testing.assert_allclose(got, concrete(tf.constant(ids)), rtol=1e-5, atol=1e-5)


def test_every_converter_is_an_operator_of_tensorflow():
    known = {name for name in CONVERTERS if not hasattr(raw, name)}
    assert known <= {"FusedBatchNormV2", "BatchMatMulV3", "Inv"}
