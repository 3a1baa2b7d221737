"""From a lowered module to an executable, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tvm_ffi.registry import list_global_func_names

from tvm_qat.errors import InputError
from tvm_qat.ir import IRModule, relax, tvm
from tvm_qat.kernels.cuda.table import is_cuda
from tvm_qat.package.cuda import as_ptx

DUMPS = ("relax", "tir", "ll", "asm", "ptx")


def pass_context(config: Mapping[str, Any], disabled: Sequence[str], instruments: Sequence[Any] = ()) -> Any:
    """TVM's PassContext at optimization level 3; raises InputError for an unknown option."""
    try:
        return tvm.transform.PassContext(
            opt_level=3, config=dict(config), disabled_pass=list(disabled), instruments=list(instruments)
        )
    except (ValueError, TypeError, AttributeError) as error:
        reason = (str(error) or repr(error)).splitlines()[0].split(" candidates are")[0]
        raise InputError(f"pass config: {reason}") from None


def tvm_passes() -> frozenset[str]:
    """The names of TVM's own passes that a user may disable, e.g. FuseOps."""
    paths = (name.split(".transform.") for name in list_global_func_names() if ".transform." in name)
    return frozenset(path[-1] for path in paths)


def executable_of(mod: IRModule, target: Any) -> Any:
    """Code for a module that holds VM calls and PrimFuncs only."""
    with as_ptx(target), _tensors_as_they_are(target):
        return relax.build(order_shape_stores(mod), target=target, relax_pipeline=None)


@contextmanager
def _tensors_as_they_are(target: Any) -> Iterator[None]:
    """For a GPU, tensors between the kernels of one function keep their shape: TVM would cut them to what
    is read, and finds that by dividing by sizes that may be 0."""
    if not is_cuda(target):
        yield
        return
    context = tvm.transform.PassContext.current()
    disabled = [*context.disabled_pass, "s_tir.CompactBufferAllocation"]
    config = dict(context.config)
    with tvm.transform.PassContext(context.opt_level, disabled_pass=disabled, config=config):
        yield


def order_shape_stores(mod: IRModule) -> IRModule:
    """The functions that compute symbolic dimensions, with their stores sorted by slot.

    TVM's VMShapeLower emits these stores in the order of a hash of addresses, so that two
    processes would build different code. They are independent: each reads slots that were
    filled before the function was called.
    """
    out = IRModule(mod.functions, attrs=mod.attrs)
    for gvar, func in mod.functions_items():
        if isinstance(func, tvm.tirx.PrimFunc) and gvar.name_hint.startswith("shape_func"):
            out.update_func(gvar, func.with_body(_sorted(func.body)))
    return out


def _sorted(body: Any) -> Any:
    if not isinstance(body, tvm.tirx.SeqStmt) or not all(
        isinstance(statement, tvm.tirx.BufferStore) for statement in body.seq
    ):
        return body
    return tvm.tirx.SeqStmt(sorted(body.seq, key=lambda store: int(store.indices[0])))


def code_of(executable: Any, form: str) -> str:
    """The machine code of an executable as text: `ll` (LLVM IR), `asm`, or the `ptx` of a GPU's kernels."""
    modules = executable.mod.imports
    if form == "ptx":
        inner = [module for library in modules for module in (library, *library.imports)]
        return "\n".join(str(module.inspect_source()) for module in inner if module.kind == "cuda")
    libraries = (module for module in modules if module.kind == "llvm")
    return "\n".join(str(library.inspect_source(form)) for library in libraries)
