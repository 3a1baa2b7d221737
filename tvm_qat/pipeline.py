"""The order of the passes: read this first.

Each line holds a constraint with its reason. A pass is a function IRModule -> IRModule; none of
them knows the target.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from tvm_qat.errors import InputError
from tvm_qat.ir import IRModule
from tvm_qat.passes.cancel_requantize_pairs import cancel_requantize_pairs
from tvm_qat.passes.canonicalize_fake_quant import canonicalize_fake_quant
from tvm_qat.passes.choose_layout import choose_layout
from tvm_qat.passes.extract_qparams import extract_qparams
from tvm_qat.passes.fold_batch_norm import fold_batch_norm
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.passes.fuse import fuse
from tvm_qat.passes.prune_training_remnants import prune_training_remnants

Pass = Callable[[IRModule], IRModule]

PASSES: dict[str, Pass] = {
    # First: dropout and no-op casts would break the chains that canonicalization looks for.
    "prune_training_remnants": prune_training_remnants,
    # Before extraction: it turns seven spellings into the one that extraction reads.
    "canonicalize_fake_quant": canonicalize_fake_quant,
    # Before batch norms: their folding rescales dequantized weights, not fake-quantized ones.
    "extract_qparams": extract_qparams,
    # Before folding: afterwards the weights are integers inside qnn.conv2d.
    "fold_batch_norm": fold_batch_norm,
    # Needs all of the above: it reads nothing but quantize, dequantize and float operators.
    "fold_into_qnn": fold_into_qnn,
    # After folding, which makes the requantizes; before layout, so that fewer tensors are laid.
    "cancel_requantize_pairs": cancel_requantize_pairs,
    # Before fusion: a transpose between a sum and its requantize would end the chain.
    "choose_layout": choose_layout,
    # Last: what it joins, no other pass looks into.
    "fuse": fuse,
}

REQUIRED = frozenset({"canonicalize_fake_quant", "extract_qparams"})
"""Without these, what training said cannot be compiled at all."""


def run(
    mod: IRModule,
    *,
    rounding: str = "half_even",
    disabled: Collection[str] = (),
    until: str | None = None,
    after: Callable[[str, float], None] | None = None,
) -> IRModule:
    """Run the passes on an imported module.

    rounding : of every requantize, one of fixed_point.REQUANTIZE_ROUNDINGS.
    disabled : names of passes to leave out.
    until : stop after this pass.
    after : called with (name, seconds) after each pass.
    """
    _check_names(disabled)
    for name, pass_ in PASSES.items():
        if name not in disabled:
            begin = time.perf_counter()
            mod = fold_into_qnn(mod, rounding) if name == "fold_into_qnn" else pass_(mod)
            if after is not None:
                after(name, time.perf_counter() - begin)
        if name == until:
            break
    return mod


def _check_names(disabled: Collection[str]) -> None:
    unknown = sorted(set(disabled) - set(PASSES))
    if unknown:
        raise InputError(f"no pass is called {', '.join(unknown)}; the passes are {', '.join(PASSES)}")
    needed = sorted(set(disabled) & REQUIRED)
    if needed:
        raise InputError(f"pass {', '.join(needed)} cannot be disabled: nothing else reads fake quantization")
