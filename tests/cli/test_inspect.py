from __future__ import annotations

import json
from pathlib import Path

import onnx

from tests.cli.conftest import MODEL, Call
from tvm_qat.passes.fold.values import CODES

ROW = {
    "name": str,
    "op": str,
    "integer": bool,
    "dtype": str,
    "macs": int,
    "shape": list,
    "reason": str,
    "code": str,
    "remedy": str,
    "inputs": list,
    "weights": list,
    "outputs": list,
    "weight_bytes": int,
    "activation_bytes": int,
    "kind": str,
    "kernel": str,
    "isa": str,
    "functions": list,
    "fused_into": str,
}
TOTALS = {
    "macs": int, "int8_macs": int, "int8_mac_share": float, "bytes": int, "int8_bytes": int,
    "int8_byte_share": float, "integer_operators": int,
    "float_operators": int, "grid_changes": int, "pruned": int, "requantizes_cancelled": int,
    "batch_norms_folded": int, "weight_bytes": int, "source_weight_bytes": int,
    "instruction": str,
}  # fmt: skip


def test_json_has_the_promised_form(call: Call):
    document = json.loads(call("inspect", MODEL, "--json").out)
    assert set(document) == {"model", "layers", "removed", "totals"}
    for row in document["layers"]:
        assert {name: type(value) for name, value in row.items()} == ROW
        assert bool(row["reason"]) != row["integer"] and bool(row["remedy"]) == bool(row["reason"])
        assert row["code"] in CODES or (row["integer"] and not row["code"])
    assert {name: type(value) for name, value in document["totals"].items()} == TOTALS


def test_all_products_of_the_demo_model_run_on_integers(call: Call):
    document = json.loads(call("inspect", MODEL, "--json").out)
    assert document["totals"]["int8_mac_share"] == 1.0
    assert sum(row["macs"] for row in document["layers"]) == document["totals"]["macs"] > 0


def test_a_package_shows_what_its_model_shows(call: Call, module: Path):
    of_model = json.loads(call("inspect", MODEL, "--json", "--target", "llvm").out)
    of_package = json.loads(call("inspect", module, "--json").out)
    assert of_package["model"] == str(module)
    assert {**of_model, "model": ""} == {**of_package, "model": ""}
    assert call("inspect", module, "--target", "native").code == 4


def test_a_package_for_another_machine_can_be_inspected(call: Call, tmp_path: Path):
    foreign = '{"kind": "llvm", "mtriple": "aarch64-linux-gnu"}'
    assert call("compile", MODEL, "-o", tmp_path / "arm.tar", "--target", foreign).code == 0
    assert call("run", tmp_path / "arm.tar").code == 4
    result = call("inspect", tmp_path / "arm.tar", "--json")
    assert result.code == 0 and json.loads(result.out)["totals"]["int8_mac_share"] == 1.0


def test_the_table_names_every_layer(call: Call):
    document = json.loads(call("inspect", MODEL, "--json").out)
    shown = call("inspect", MODEL).out
    assert all(row["name"] in shown for row in document["layers"])
    assert "100.00% of them on integers" in shown


def test_options_that_a_package_cannot_follow_are_refused(call: Call, module: Path):
    result = call("inspect", module, "--rounding", "tflite", "--disabled-pass", "fuse")
    assert result.code == 4
    assert "rounding and disabled_passes need a model file, not a package" in result.err


def test_nodes_and_operators_are_kept_in_float_by_flags_and_by_a_file(call: Call, tmp_path: Path):
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"keep_float": ["fc1"]}))
    by_flag = json.loads(call("inspect", MODEL, "--json", "--target", "llvm", "--keep-float", "fc1").out)
    by_file = json.loads(call("inspect", MODEL, "--json", "--target", "llvm", "--config", config).out)
    assert by_flag == by_file
    (row,) = [row for row in by_flag["layers"] if row["code"] == "by-request"]
    assert (row["name"], row["kind"], row["integer"]) == ("fc1", "MatMul", False)
    result = call("inspect", MODEL, "--only-int8", "MatMul", "Add", "--target", "llvm")
    assert "kept in float by request" in result.out


def test_a_node_that_is_not_there_is_refused_with_the_closest_names(call: Call):
    result = call("inspect", MODEL, "--keep-float", "fc7")
    assert result.code == 4 and result.refused_in_one_line and "did you mean fc" in result.err


def test_the_graph_is_written_for_graphviz_and_for_netron(call: Call, module: Path, tmp_path: Path):
    files = tmp_path / "m.dot", tmp_path / "m.onnx"
    assert call("inspect", module, "--dot", files[0], "--graph", files[1]).code == 0
    rows = json.loads(call("inspect", module, "--json").out)["layers"]
    text, model = files[0].read_text(), onnx.load(files[1])
    assert all(f'"{row["name"]}"' in text for row in rows)
    assert len(model.graph.node) == len(rows)
    result = call("inspect", module, "--graph", tmp_path / "missing" / "m.onnx")
    assert result.code == 4 and result.refused_in_one_line
