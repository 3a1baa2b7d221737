"""Registers the dialect's operators with TVM. Importing this module does it, once."""

from __future__ import annotations

from tvm.ir import Op, _ffi_api

from tvm_qat.qnn.table import OPS, OpSpec


def _register(spec: OpSpec) -> None:
    if spec.name in Op.list_op_names():
        return
    _ffi_api.RegisterOp(spec.name, spec.summary)
    op = Op.get(spec.name)
    op.set_num_inputs(len(spec.args))
    for arg in spec.args:
        op.add_argument(arg, "Tensor", arg.replace("_", " "))
    op.set_attr("FInferType", spec.infer)
    op.set_attr("FPurity", True)
    op.set_attr("TScriptPrinterName", spec.name)


for _spec in OPS.values():
    _register(_spec)
