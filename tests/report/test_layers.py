from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.tiny import ACCUMULATOR, GRID, OUTPUT_GRID, float_module, integer_module
from tvm_qat.ir import BlockBuilder, Expr, IRModule, TensorType, Var, add_notes, const, relax, with_source
from tvm_qat.qnn import build as qnn
from tvm_qat.report import Report, report_of
from tvm_qat.report.macs import macs_of


def typed(value: Expr, *params: Var) -> Expr:
    """The call with its type inferred."""
    builder = BlockBuilder()
    with builder.function("main", list(params)):
        result = builder.emit(value)
        builder.emit_func_output(result)
    return builder.get()["main"].body.blocks[0].bindings[0].value


def test_an_integer_convolution_is_one_integer_row():
    report = report_of(integer_module())
    rows = {layer.name: layer for layer in report.layers}
    assert list(rows) == ["quantize1", "conv1", "dequantize1"]
    conv = rows["conv1"]
    assert (conv.op, conv.integer, conv.dtype, conv.reason) == ("qnn.conv2d", True, "uint8", "")
    assert conv.macs == 3 * 4 * 4 * 2 * 3 * 3
    assert conv.shape == ("n", 3, 4, 4)
    assert report.totals["int8_mac_share"] == 1.0
    assert (report.totals["integer_operators"], report.totals["float_operators"]) == (1, 0)
    assert report.totals["grid_changes"] == 2


def test_a_float_row_has_the_reason_that_a_pass_gave():
    mod = add_notes(
        float_module(),
        [{"kind": "float", "code": "run-time", "node": "conv1", "text": "the scale is not constant"}],
    )
    report = report_of(mod)
    conv, relu = report.layers
    assert (conv.integer, conv.dtype, conv.reason) == (False, "float32", "the scale is not constant")
    assert relu.reason
    assert report.totals["int8_mac_share"] == 0.0
    assert report.totals["float_operators"] == 2


def test_a_row_has_the_reason_of_its_own_operator_not_of_its_bias():
    whys = ["conv2d: its input is not quantized", "add: its inputs are not quantized"]
    notes = [{"kind": "float", "code": "not-quantized", "node": "conv1", "text": text} for text in whys]
    for given in (notes, notes[::-1]):
        assert report_of(add_notes(float_module(), given)).layers[0].reason == whys[0]


def test_what_the_passes_removed_is_counted():
    kinds = ["pruned", "pruned", "cancelled", "batch_norm_folded"]
    totals = report_of(
        add_notes(float_module(), [{"kind": k, "node": "x", "text": ""} for k in kinds])
    ).totals
    assert (totals["pruned"], totals["requantizes_cancelled"], totals["batch_norms_folded"]) == (2, 1, 1)


def test_moving_integers_counts_as_integer():
    builder = BlockBuilder()
    x = Var("x", TensorType((2, 3), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(with_source(relax.op.permute_dims(x, [1, 0]), "t"))
        builder.emit_func_output(result)
    (row,) = report_of(builder.get()).layers
    assert (row.name, row.op, row.integer, row.dtype) == ("t", "relax.permute_dims", True, "int8")


def test_a_model_without_products_has_the_full_share():
    mod = IRModule({})
    builder = BlockBuilder(mod)
    x = Var("x", TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.nn.relu(x))
        builder.emit_func_output(result)
    totals = report_of(builder.get()).totals
    assert (totals["macs"], totals["int8_mac_share"], totals["float_operators"]) == (0, 1.0, 1)


def test_two_nodes_without_a_name_are_two_rows():
    builder = BlockBuilder()
    x = Var("x", TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.nn.relu(builder.emit(relax.op.nn.relu(x))))
        builder.emit_func_output(result)
    assert len(report_of(builder.get()).layers) == 2


def test_a_fused_function_is_looked_into():
    builder = BlockBuilder()
    inner = Var("data", TensorType((2, 4), "uint8"))
    weight = const(np.ones((3, 4), np.int8))
    composite = {"Composite": "qnn.fused"}
    with builder.function("fused", [inner], attrs=composite, private=True):
        with builder.dataflow():
            sums = builder.emit(with_source(qnn.dense(inner, weight, 3), "dense1"))
            rescaled = with_source(qnn.requantize(sums, ACCUMULATOR, OUTPUT_GRID), "dense1")
            result = builder.emit_output(rescaled)
        fused = builder.emit_func_output(result)
    x = Var("x", TensorType((2, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            q = builder.emit(with_source(qnn.quantize(x, GRID), "q"))
            result = builder.emit_output(relax.Call(fused, [q]))
        builder.emit_func_output(result)
    report = report_of(builder.get())
    assert [(row.name, row.op, row.macs) for row in report.layers] == [
        ("q", "qnn.quantize", 0), ("dense1", "qnn.dense", 2 * 3 * 4),
    ]  # fmt: skip
    assert report.totals["weight_bytes"] >= 12


@pytest.mark.parametrize(
    ("call", "params", "expected"),
    [
        (lambda x, w: relax.op.nn.conv2d(x, w, groups=2), [(1, 4, 5, 5), (6, 2, 3, 3)], 6 * 9 * 2 * 9),
        (lambda x, w: relax.op.nn.conv1d(x, w), [(2, 4, 5), (6, 4, 3)], 2 * 6 * 3 * 4 * 3),
        (
            lambda x, w: relax.op.nn.conv2d_transpose(x, w, strides=(2, 2)),
            [(1, 4, 5, 5), (4, 3, 2, 2)],
            4 * 25 * 3 * 4,
        ),
        (lambda x, w: relax.op.matmul(x, w), [(5, 2, 3), (5, 3, 4)], 5 * 2 * 3 * 4),
        (lambda x, w: relax.op.add(x, w), [(2, 3), (2, 3)], 0),
    ],
)
def test_products_are_counted(call: object, params: list[tuple[int, ...]], expected: int):
    variables = [Var(f"v{i}", TensorType(shape, "float32")) for i, shape in enumerate(params)]
    assert macs_of(typed(call(*variables), *variables)) == expected


def test_a_report_survives_json():
    report = report_of(integer_module())
    document = json.loads(json.dumps(report.to_json()))
    assert Report.from_json(document) == report
