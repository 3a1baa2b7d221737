"""The passes between lowered kernels and `relax.build`: TVM's own, with our schedule and fences."""

from __future__ import annotations

from typing import Any

from tvm_qat.ir import IRModule, relax, tvm
from tvm_qat.kernels.cuda.bind import ScheduleOnCUDA
from tvm_qat.kernels.cuda.device_calls import DeviceCalls
from tvm_qat.kernels.cuda.sort import SortOnCUDA
from tvm_qat.kernels.cuda.table import is_cuda
from tvm_qat.kernels.names import NamesFirst
from tvm_qat.kernels.one_call import OneCall
from tvm_qat.kernels.own_functions import OwnFunctions
from tvm_qat.kernels.schedule import ScheduleOnCPU
from tvm_qat.kernels.sources import NamedKernels, WithSources
from tvm_qat.kernels.strict_float import StrictFloat
from tvm_qat.kernels.tables import ChooseLookups


def build_passes(target: Any, *, one_call: bool = False) -> list[Any]:
    """What turns a module whose qnn calls are lowered into one that the VM code generator takes.

    one_call : see kernels.one_call; whoever asks for it links the constants as well.
    """
    t = relax.transform
    return [
        WithSources(relax.backend.DispatchSampling()),
        *([WithSources(SortOnCUDA())] if is_cuda(target) else []),
        WithSources(relax.backend.DispatchSortScan()),
        WithSources(t.LegalizeOps()),
        t.AnnotateTIROpPattern(),
        t.FoldConstant(),
        t.FuseOps(),
        NamedKernels(t.FuseTIR(), [*_code_passes(target), t.RewriteDataflowReshape()]),
        t.ToNonDataflow(),
        t.RemovePurityChecking(),
        t.CallTIRRewrite(),
        t.StaticPlanBlockMemory(),
        *([OneCall()] if one_call else []),
        t.LowerAllocTensor(),
        t.KillAfterLastUse(),
        t.LowerRuntimeBuiltin(),
        t.ComputePrimValue(),
        t.VMShapeLower(),
        t.AttachGlobalSymbol(),
    ]


def _code_passes(target: Any) -> list[Any]:
    if is_cuda(target):
        return [ScheduleOnCUDA(), OwnFunctions(), DeviceCalls()]
    return [ScheduleOnCPU(), OwnFunctions(), ChooseLookups(target), StrictFloat(), NamesFirst()]


def finish(target: Any, *, one_call: bool = False) -> Any:
    """`build_passes` as one pass, run with `target` in force: a `relax_pipeline` for tvm.compile."""
    return _Finish(target, one_call)


@tvm.transform.module_pass(opt_level=0, name="tvm_qat.finish")
class _Finish:
    def __init__(self, target: Any, one_call: bool) -> None:
        self.target = target
        self.one_call = one_call

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        with self.target:
            return tvm.transform.Sequential(build_passes(self.target, one_call=self.one_call))(mod)
