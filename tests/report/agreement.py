"""Whether a report says what the TensorIR of the compiled module does."""

from __future__ import annotations

from pathlib import Path

import tvm_qat
from tests.support.tir import products, tensors
from tvm_qat import kernels, pipeline
from tvm_qat.ir import IRModule
from tvm_qat.package.target import parse_target
from tvm_qat.report import Layer, Report

INSTRUCTIONS = {
    "avx512vnni": "vpdpbusd.512", "avxvnni": "vpdpbusd.256", "avx512bw": "pmaddw.d.512", "avx2": "pmadd.wd",
}  # fmt: skip


def compiled(model: Path, target: str) -> IRModule:
    """The module from which TVM makes machine code."""
    folded, chosen = pipeline.run(tvm_qat.import_model(model)), parse_target(target)
    return kernels.finish(chosen, one_call=True)(kernels.lower(folded, chosen))


def check_agreement(model: Path, target: str) -> Report:
    """Asserts that what `inspect` says of a model is what its module does."""
    report = tvm_qat.inspect(model, target)
    check_report(report, compiled(model, target))
    return report


def check_report(report: Report, mod: IRModule) -> None:
    """Asserts that every row's kernel, instruction set, dtypes and products are those of the module."""
    funcs = {gvar.name_hint: func for gvar, func in mod.functions_items()}
    marked = {name for name, func in funcs.items() if kernels.PLACES in (func.attrs or {})}
    assert {name for layer in report.layers for name in layer.functions} == marked, "every kernel has a row"
    for layer in report.layers:
        if layer.kernel != "view":
            _check_row(layer, funcs[layer.functions[0]])
    _check_tensors(report, funcs)
    _check_totals(report, funcs)


def _check_row(layer: Layer, func: object) -> None:
    assert (layer.kernel, layer.isa) == (str(func.attrs[kernels.KERNEL]), str(func.attrs[kernels.ISA]))
    if not layer.macs:
        return
    found = products(func)
    assert found, f"{layer.name} multiplies and adds"
    kind = "int" if layer.integer else "float"
    assert all(product.dtype.startswith(kind) for product in found), layer.name
    wanted = INSTRUCTIONS.get(layer.isa, "")
    assert all(wanted in product.instruction for product in found)
    assert any(product.instruction for product in found) == bool(wanted), layer.name


def _check_tensors(report: Report, funcs: dict[str, object]) -> None:
    """What a kernel takes and gives has the dtypes that its rows say."""
    rows = {layer.name: layer for layer in report.layers}
    read_by: dict[str, list[Layer]] = {}
    for layer in report.layers:
        for tensor in layer.inputs:
            read_by.setdefault(tensor.source, []).append(layer)
    for layer in report.layers:
        if not layer.functions:
            continue
        own = set(layer.functions)
        dtypes = [tensors(funcs[name]) for name in layer.functions]
        for tensor in layer.inputs:
            maker = rows.get(tensor.source)
            if maker is None or not own & set(maker.functions):
                assert any(tensor.dtype in each[:-1] for each in dtypes), (layer.name, tensor)
        readers = read_by.get(layer.name, [])
        if layer.outputs and not any(own & set(reader.functions) for reader in readers):
            assert any(layer.outputs[0].dtype == each[-1] for each in dtypes), layer.name


def _check_totals(report: Report, funcs: dict[str, object]) -> None:
    """The share of products on integers, counted in the code."""
    counted = sum(
        layer.macs
        for layer in report.layers
        if layer.macs and all(p.dtype.startswith("int") for p in products(funcs[layer.functions[0]]))
    )
    assert counted == report.totals["int8_macs"]
    assert report.totals["macs"] == sum(layer.macs for layer in report.layers)
