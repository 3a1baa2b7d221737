"""What TVM calls while it is being imported (entry point group `tvm.backends`).

Registers the dialect's operators, so that a saved module with them loads, and the pipeline
"qat", so that a TVM build script gets integer code by one argument:

    tvm.compile(mod, target, relax_pipeline=relax.get_pipeline("qat"))

Where TVM_DEVICE_BACKEND_AUTOLOAD=0 turns this off, call `tvm_qat.plugin.autoload()`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any


def autoload() -> None:
    """Costs milliseconds; the passes are loaded when the pipeline is first asked for."""
    from tvm.relax.pipeline import PIPELINE_MAP

    PIPELINE_MAP.setdefault("qat", _pipeline)
    # Where tvm_qat itself imports TVM, its modules are half made now, and it registers the rest.
    if "tvm_qat.ir" not in sys.modules:
        from tvm_qat.qnn import register  # noqa: F401


def _pipeline(rounding: str = "half_even", disabled: Collection[str] = ()) -> Any:
    """The passes, then the kernels for the target in whose scope the module is compiled."""
    from tvm_qat import kernels, pipeline
    from tvm_qat.ir import IRModule, tvm

    def transform(mod: IRModule, _context: Any) -> IRModule:
        target = tvm.target.Target.current() or tvm.target.Target("llvm")
        folded = pipeline.run(mod, rounding=rounding, disabled=disabled)
        return kernels.finish(target)(kernels.lower(folded, target))

    return tvm.transform.module_pass(transform, opt_level=0, name="qat")
