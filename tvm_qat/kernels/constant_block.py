"""The constants of a model as one block of bytes, outside of what TVM's virtual machine loads.

    conv(x, weights, bias, y)        ->     constants = tvm_qat_constants()
                                            conv_bound(constants, x, y)

`conv_bound` is a PrimFunc that calls `conv` with addresses in the block. Whoever links the code
puts the block behind the function `tvm_qat_constants`: it then stays in the file that holds the
code, from where the system maps it. The virtual machine would hold two copies of its own.

Where all shapes are known, `one_call` does more; this is for the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import BlockBuilder, Call, Expr, IRModule, Var, array_of, bindings_of, is_const, relax, tvm
from tvm_qat.kernels.run_func import CONSTANTS, Place, bound_func
from tvm_qat.kernels.sources import SOURCES

ADDRESS = "tvm_qat_constants"
"""Symbol of the function that returns where the block lies."""

BLOCK = "qat.constants"
"""Attribute of a module: the block, as a tensor of bytes."""

ALIGNMENT = 64
"""Bytes; kernels rely on it, as TVM's own allocations have it."""


class ConstantBlock:
    """Equal constants lie in one place."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._offsets: dict[tuple[Any, ...], int] = {}

    def place(self, constant: Expr) -> Place:
        array = array_of(constant)
        dtype, data = str(array.dtype), array.tobytes()
        key = (dtype, array.shape, hashlib.sha256(data).digest())
        if key not in self._offsets:
            self._offsets[key] = len(self._bytes)
            self._bytes += data
            self._bytes += bytes(-len(data) % ALIGNMENT)
        return Place(CONSTANTS, self._offsets[key], array.shape, dtype)

    @property
    def is_empty(self) -> bool:
        return not self._offsets

    def to_numpy(self) -> npt.NDArray[np.uint8]:
        """All of it, as bytes."""
        return np.frombuffer(self._bytes, np.uint8)

    def attached_to(self, mod: IRModule) -> IRModule:
        return mod.with_attr(BLOCK, tvm.runtime.tensor(self.to_numpy()))


def address() -> tuple[Var, Any]:
    """A variable and its binding, to where the block lies."""
    var = relax.Var("constants", relax.AnyType())
    return var, relax.VarBinding(var, Call(relax.ExternFunc(ADDRESS), [], None, [relax.AnyType()]))


def is_kernel_call(value: Expr) -> bool:
    return isinstance(value, Call) and isinstance(value.op, tvm.ir.GlobalVar)


def bind_constants(mod: IRModule) -> IRModule:
    """`mod` with the constants of the kernels that main calls in a block, if there are any."""
    main, block, builder = mod["main"], ConstantBlock(), BlockBuilder(mod)
    constants, binding_of_constants = address()
    seen: Counter[str] = Counter()
    bindings = [binding_of_constants]
    for binding in bindings_of(main):
        call = binding.value
        if is_kernel_call(call):
            name = str(call.op.name_hint)
            if any(map(is_const, call.args)):
                bound = builder.add_func(_bound(block, call, mod[call.op], seen[name]), f"{name}_bound")
                others = [arg for arg in call.args if not is_const(arg)]
                binding = relax.VarBinding(binding.var, Call(bound, [constants, *others]))
            seen[name] += 1
        bindings.append(binding)
    if block.is_empty:
        return mod
    body = relax.SeqExpr([relax.BindingBlock(bindings)], main.body.body)
    changed = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    builder.update_func(mod.get_global_var("main"), changed)
    return block.attached_to(builder.get())


def _bound(block: ConstantBlock, call: Expr, kernel: Any, nth: int) -> Any:
    """A PrimFunc for the nth call of `kernel`, under the name of the node that it works for."""
    places = [block.place(arg) if is_const(arg) else None for arg in call.args]
    func = bound_func(f"{call.op.name_hint}_bound", str(call.op.name_hint), places)
    sources = list((kernel.attrs or {}).get(SOURCES, ()))
    return func.with_attr(SOURCES, [sources[nth]]) if nth < len(sources) else func
