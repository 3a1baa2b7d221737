"""The table agrees with the code: dtypes and instructions are counted in the TensorIR of each kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tvm_qat
from tests.report.agreement import check_agreement, check_report, compiled
from tests.support.corpus import CORPUS, needs_corpus, one_of_each_folder
from tests.support.tir import Product, products
from tvm_qat import kernels

DEMO = Path(tvm_qat.__file__).parent / "data" / "demo"
TARGETS = ("llvm", '{"kind": "llvm", "mcpu": "cascadelake"}', '{"kind": "llvm", "mcpu": "x86-64-v3"}')

SMALL = (
    "tiny_v13_kaijiang/kws_ref_model.onnx", "mlonmcu/micro_kws_m_static_qoperator.onnx",
    "ort_testdata/conv_qdq_s8s8_perchannel.onnx", "ort_testdata/qdq_with_multi_consumer_q_dq_axis.onnx",
    "ort_testdata/dynamic_quantize_matmul.onnx", "hobby_onnx/mnist_factorio_quantized.onnx",
    "qonnx_zoo/qkeras_jettagging.onnx", "deeploy/eegformer_network.onnx",
    "tflite_micro/micro_speech_quantized.tflite", "ai_edge_quantizer/partly_quantized_mnist.tflite",
    "microwakeword/vad.tflite", "mlperf_tiny/kws_ref_model.tflite",
)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_the_demos_table_agrees_with_its_code(name: str, target: str) -> None:
    report = check_agreement(DEMO / f"{name}.onnx", target)
    assert report.totals["int8_macs"] > 0


@needs_corpus
@pytest.mark.corpus
@pytest.mark.parametrize("path", one_of_each_folder(CORPUS / name for name in SMALL))
def test_the_table_of_a_model_by_others_agrees_with_its_code(path: Path) -> None:
    check_agreement(path, TARGETS[1])


@pytest.mark.parametrize(("target", "instruction"), [(TARGETS[0], ""), (TARGETS[1], "vpdpbusd.512")])
def test_products_are_found_where_they_are(target: str, instruction: str) -> None:
    """The counting itself: sums of products of this network, and nothing else, are counted."""
    mod = compiled(DEMO / "digits_cnn.onnx", target)
    found: dict[str, set[Product]] = {}
    for _, func in mod.functions_items():
        if kernels.KERNEL in (func.attrs or {}):
            found.setdefault(str(func.attrs[kernels.KERNEL]), set()).update(products(func))
    linear = {name for name in found if "linear" in name}
    assert all(found[name] for name in linear) and linear
    for name in linear:
        assert {product.dtype for product in found[name]} == {"int32"}
        if name == "dot_linear":
            assert any(instruction in product.instruction for product in found[name])
    assert not any(found[name] for name in ("plain_max_pool", "plain_elementwise", "tvm"))


def test_a_wrong_table_is_noticed() -> None:
    model = DEMO / "digits_cnn.onnx"
    report, mod = tvm_qat.inspect(model, TARGETS[1]), compiled(model, TARGETS[1])
    for change in ({"isa": "avx2"}, {"integer": False}, {"kernel": "tvm"}):
        row = next(layer for layer in report.layers if layer.macs)
        rows = (replace(layer, **change) if layer is row else layer for layer in report.layers)
        with pytest.raises(AssertionError):
            check_report(replace(report, layers=tuple(rows)), mod)
