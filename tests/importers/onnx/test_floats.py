"""Float operators that the importer translates itself, and shape computations, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.support.onnx_models import f32, model, node
from tests.support.run import check_against_onnxruntime, imported, random_inputs, simulate
from tvm_qat.ir import bindings_of, op_name

RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def operators(made):
    names = [op_name(binding.value) for binding in bindings_of(imported(made)["main"])]
    return [name for name in names if name]


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"pads": [1, 0, 2, 1], "dilations": [2, 1]},
        {"group": 2},
    ],
)
def test_conv(attrs):
    weight = normal(6, 4 // attrs.get("group", 1), 3, 2)
    constants = {"w": weight, "b": normal(6)}
    made = model([node("Conv", "x w b", "y", **attrs)], {"x": (2, 4, 8, 7)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made)
    assert operators(made) == ["relax.nn.conv2d", "relax.add"]


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_in_other_dimensions(rank):
    shape, kernel = (1, 3, 6, 5, 4)[: rank + 2], (2, 3, 2)[:rank]
    made = model([node("Conv", "x w", "y")], {"x": shape}, ["y"], {"w": normal(4, 3, *kernel)}, opset=13)
    check_against_onnxruntime(made)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"strides": [2, 3], "pads": [1, 0, 1, 1], "output_padding": [1, 2]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [9, 10]},
        {"group": 2},
    ],
)
def test_conv_transpose(attrs):
    constants = {"w": normal(4, 6 // attrs.get("group", 1), 3, 3), "b": normal(6)}
    made = model(
        [node("ConvTranspose", "x w b", "y", **attrs)], {"x": (1, 4, 5, 5)}, ["y"], constants, opset=13
    )
    check_against_onnxruntime(made)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel_shape": [3, 3]},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
    ],
)
def test_pools(op, attrs):
    made = model([node(op, "x", "y", **attrs)], {"x": (1, 2, 8, 7)}, ["y"], opset=19)
    check_against_onnxruntime(made)


@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool_that_counts_its_padding(ceil_mode):
    attrs = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    made = model(
        [node("AveragePool", "x", "y", ceil_mode=ceil_mode, **attrs)], {"x": (1, 2, 8, 7)}, ["y"], opset=19
    )
    check_against_onnxruntime(made)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("rank", [1, 3])
def test_pools_in_other_dimensions(op, rank):
    made = model(
        [node(op, "x", "y", kernel_shape=[2] * rank)], {"x": (1, 2, 4, 5, 6)[: rank + 2]}, ["y"], opset=13
    )
    check_against_onnxruntime(made)


def test_max_pool_of_integers():
    nodes = [node("MaxPool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
    check_against_onnxruntime(model(nodes, {"x": ((1, 2, 5, 5), TensorProto.INT8)}, ["y"], opset=13))


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (None, 1.0), (-1.0, None), (None, None)])
def test_clip_with_constant_bounds_is_one_operator(bounds):
    names = ["_" if bound is None else name for bound, name in zip(bounds, ("lo", "hi"), strict=True)]
    constants = {
        name: f32(bound) for bound, name in zip(bounds, ("lo", "hi"), strict=True) if bound is not None
    }
    made = model([node("Clip", f"x {' '.join(names)}", "y")], {"x": (3, 4)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made)
    assert len(operators(made)) == min(1, sum(bound is not None for bound in bounds))


def test_clip_with_bounds_as_attributes_and_as_inputs():
    check_against_onnxruntime(
        model([node("Clip", "x", "y", min=0.0, max=6.0)], {"x": (3, 4)}, ["y"], opset=10)
    )
    check_against_onnxruntime(model([node("Clip", "x _ hi", "y")], {"x": (3, 4), "hi": ()}, ["y"], opset=13))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pad(mode):
    constants = {"p": np.array([0, 1, 2, 0, 2, 1])} | ({"v": f32(1.5)} if mode == "constant" else {})
    nodes = [node("Pad", "x p" + (" v" if mode == "constant" else ""), "y", mode=mode)]
    made = model(nodes, {"x": (2, 3, 4)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made)
    assert operators(made) == ["relax.nn.pad"]


def test_pad_of_some_axes_and_negative_pad():
    constants = {"p": np.array([1, -1]), "a": np.array([-1])}
    check_against_onnxruntime(model([node("Pad", "x p _ a", "y")], {"x": (2, 4)}, ["y"], constants, opset=18))
    check_against_onnxruntime(
        model([node("Pad", "x", "y", pads=[0, 1, 1, 0])], {"x": (2, 4)}, ["y"], opset=10)
    )


def test_pad_of_integers():
    constants = {"p": np.array([1, 1, 0, 2]), "v": np.int8(-5)}
    made = model([node("Pad", "x p v", "y")], {"x": ((2, 3), TensorProto.INT8)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made)


def test_tile():
    made = model([node("Tile", "x r", "y")], {"x": (2, 3)}, ["y"], {"r": np.array([2, 3])}, opset=13)
    check_against_onnxruntime(made)


@pytest.mark.parametrize(("opset", "axis"), [(10, 1), (11, 2), (12, 0), (13, 1), (13, -1)])
def test_softmax_in_both_meanings(opset, axis):
    check_against_onnxruntime(
        model([node("Softmax", "x", "y", axis=axis)], {"x": (2, 3, 4)}, ["y"], opset=opset)
    )


def test_chains_of_shape_computations_leave_no_binding():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s i", "n"),
        node("Unsqueeze", "n a", "u"),
        node("Constant", "", "m", value_ints=[-1]),
        node("Concat", "u m", "t", axis=0),
        node("Reshape", "x t", "y"),
        node("Identity", "y", "z"),
    ]
    constants = {"i": np.int64(0), "a": np.array([0])}
    made = model(nodes, {"x": (2, 3, 4)}, ["z"], constants, opset=13)
    check_against_onnxruntime(made)
    assert operators(made) == ["relax.reshape"]


def test_the_same_chain_with_a_symbolic_batch():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s i", "n"),
        node("Unsqueeze", "n a", "u"),
        node("Concat", "u m", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    constants = {"i": np.int64(0), "a": np.array([0]), "m": np.array([-1])}
    check_against_onnxruntime(model(nodes, {"x": ("batch", 3, 4)}, ["y"], constants, opset=13))


def test_constants_are_folded():
    nodes = [
        node("Reshape", "b t", "r"),
        node("Cast", "r", "c", to=TensorProto.FLOAT),
        node("Add", "x c", "y"),
    ]
    constants = {"b": np.arange(4), "t": np.array([1, 4, 1])}
    made = model(nodes, {"x": (2, 4, 3)}, ["y"], constants, opset=13)
    check_against_onnxruntime(made)
    assert operators(made) == ["relax.add"]


@pytest.mark.parametrize(
    "op", ["Relu", "Sigmoid", "Tanh", "HardSwish", "Gelu", "Erf", "Exp", "Abs", "Softplus", "Floor", "Round"]
)
def test_unary_operators_of_tvm(op):
    check_against_onnxruntime(model([node(op, "x", "y")], {"x": (2, 33)}, ["y"], opset=20))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Gemm", "x w b", "y", transB=0, alpha=0.5, beta=2.0)],
        [node("MatMul", "x w", "m"), node("Add", "m b", "y")],
        [node("Split", "x", "p q", axis=1, num_outputs=2), node("Sub", "p q", "y")],
        [node("ReduceMean", "x", "y", keepdims=0)],
        [node("GlobalAveragePool", "i", "y")],
        [
            node(
                "Resize",
                "i _ k",
                "y",
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        ],
        [node("LayerNormalization", "x g h", "y")],
        [node("DepthToSpace", "i", "y", blocksize=2)],
        [node("Flatten", "i", "y")],
        [node("BatchNormalization", "i c c c e", "y")],
        [node("Slice", "x p0 p1 p0", "y")],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_other_operators_of_tvm(nodes):
    constants = {
        "w": normal(4, 5), "b": normal(5), "g": normal(4), "h": normal(4), "c": normal(8),
        "e": np.abs(normal(8)),
        "k": f32(1, 1, 2, 2), "p0": np.array([0]), "p1": np.array([2]),
    }  # fmt: skip
    used = {name for each in nodes for name in each.input}
    inputs = {name: shape for name, shape in {"x": (3, 4), "i": (1, 8, 2, 2)}.items() if name in used}
    constants = {name: value for name, value in constants.items() if name in used}
    check_against_onnxruntime(model(nodes, inputs, ["y"], constants, opset=18))


def test_a_constant_and_an_input_as_output():
    made = model(
        [node("Identity", "x", "y"), node("Neg", "c", "d")],
        {"x": (2,)},
        ["y", "d"],
        {"c": f32(1, 2)},
        opset=13,
    )
    found = simulate(made, random_inputs(made))
    np.testing.assert_array_equal(found["d"], [-1, -2])


OLD = [
    (10, [node("Slice", "x b e", "y")]),
    (11, [node("Squeeze", "u", "y", axes=[1])]),
    (11, [node("Unsqueeze", "x", "y", axes=[0, 2])]),
    (11, [node("Split", "x", "p q", axis=1, split=[1, 3]), node("ReduceSum", "q", "y", axes=[0])]),
    (13, [node("ReduceMax", "x", "a", axes=[1]), node("ReduceMean", "a", "y", axes=[0], keepdims=0)]),
    (11, [node("TopK", "x k", "y i")]),
    (10, [node("Dropout", "x", "d"), node("Neg", "d", "y")]),
    (10, [node("BatchNormalization", "v c c c c", "y")]),
    (11, [node("Gemm", "x w b5", "y")]),
    (10, [node("Resize", "v s", "y", mode="nearest")]),
    (11, [node("Resize", "v r s", "y", mode="linear", coordinate_transformation_mode="half_pixel")]),
    (13, [node("Resize", "v _ s", "y", mode="linear", coordinate_transformation_mode="align_corners")]),
    (18, [node("Resize", "v _ _ z", "y", mode="nearest", axes=[3, 2])]),
    (13, [node("Resize", "t _ s3", "y", mode="nearest", nearest_mode="floor")]),
    (13, [node("Pow", "x two", "y")]),
    (13, [node("Einsum", "x w", "y", equation="ij,jk->ki")]),
    (13, [node("Gather", "x neg", "y", axis=1)]),
    (13, [node("Sum", "x x x", "y")]),
]


@pytest.mark.parametrize(
    ("opset", "nodes"), OLD, ids=lambda value: value if isinstance(value, int) else value[0].op_type
)
def test_operators_in_older_opsets(opset, nodes):
    constants = {
        "b": np.array([0, 1]), "e": np.array([2, 3]), "k": np.array([2]), "c": np.abs(normal(3)),
        "w": normal(4, 5),
        "b5": normal(5), "s": f32(1, 1, 2, 3), "r": np.zeros(0, np.float32), "z": np.array([6, 4]),
        "s3": f32(1, 1, 2), "two": np.int64(2), "neg": np.array([-1, 0, -4]),
    }  # fmt: skip
    shapes = {"x": (3, 4), "u": (3, 1, 4), "v": (1, 3, 2, 2), "t": (1, 2, 3)}
    used = {name for each in nodes for name in each.input}
    made = model(
        nodes,
        {name: shape for name, shape in shapes.items() if name in used},
        ["y"],
        {name: value for name, value in constants.items() if name in used},
        opset=opset,
    )
    check_against_onnxruntime(made)


def test_gather_at_run_time_is_one_operator():
    made = model(
        [node("Gather", "x i", "y", axis=1)], {"x": (3, 4), "i": ((2,), TensorProto.INT64)}, ["y"], opset=13
    )
    assert operators(made) == ["relax.take"]
    data = {"x": normal(3, 4), "i": np.array([-1, 1])}
    np.testing.assert_array_equal(simulate(made, data)["y"], data["x"][:, [-1, 1]])


def test_unused_statistics_of_a_training_batch_norm_do_no_harm():
    constants = {"c": np.abs(normal(3))}
    nodes = [node("BatchNormalization", "v c c c c", "y m n", training_mode=1)]
    assert "relax.nn.batch_norm" in operators(model(nodes, {"v": (1, 3, 2, 2)}, ["y"], constants, opset=15))


def test_constants_that_divide_by_zero_are_constants():
    made = model(
        [node("Mod", "a b", "c", fmod=1), node("Add", "x c", "y")],
        {"x": ()},
        ["y"],
        {"a": f32(1), "b": f32(0)},
    )
    assert np.isnan(simulate(made, {"x": f32(1)})["y"]).all()
