"""What the integers of a folded module mean: the grid of each tensor.

Sums of products carry no scales, and a table knows nothing of grids; so the grids are gathered from
what stands around: what operators say themselves (quantize, requantize, add...), for products and
tables what folding noted of them, and then whatever passes through operators that only move or select
elements.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from tvm_qat.ir import Expr, attrs_of, dtype_of, shape_of, source_of
from tvm_qat.passes.fold.linear import GRIDS
from tvm_qat.passes.fold.movement import MOVES
from tvm_qat.qnn.params import concat_params, params_of
from tvm_qat.qnn.table import OPS
from tvm_qat.qparams import QParams
from tvm_qat.report.flat import Flat, FlatCall

Grids = dict[Expr, QParams]
"""By variable or constant."""

_ROLES = {"input": 0, "lhs": 0, "rhs": 1}
_SAME_GRID = frozenset([*MOVES, "relax.concat", "relax.nn.pad", "relax.split"])
_ON_SUMS = frozenset(["relax.add", "relax.clip", "relax.maximum", "relax.minimum"])
"""What folding adds in integers: a bias in int32, and the bounds of a range."""


def grids_of(flat: Flat, notes: Sequence[Mapping[str, str]] = ()) -> Grids:
    """notes : of the passes."""
    grids: Grids = {}
    for call in flat.calls:
        for tensor, params in chain(_of_operands(call), _of_result(call)):
            grids.setdefault(tensor, params)
    noted = {note["node"]: note["text"] for note in reversed(notes) if note["kind"] == GRIDS}
    for call in flat.calls:
        for tensor, params in chain(_of_product(call, noted), _of_table(call, noted)):
            grids.setdefault(tensor, params)
    for call in chain(flat.calls, reversed(flat.calls)):
        _pass_on(call, grids)
    return grids


def _of_operands(call: FlatCall) -> Iterator[tuple[Expr, QParams]]:
    if call.op == "qnn.concatenate":
        yield from zip(call.data, concat_params(call.call), strict=True)
        return
    for role, place in _ROLES.items():
        if call.op in OPS and f"{role}_scale" in OPS[call.op].args:
            params = params_of(call.call, role)
            if params is not None:
                yield call.data[place], params


def _of_result(call: FlatCall) -> Iterator[tuple[Expr, QParams]]:
    if call.op in OPS and "output_scale" in OPS[call.op].args and OPS[call.op].kind != "training":
        params = params_of(call.call, "output")
        if params is not None:
            yield call.var, params


def _of_product(call: FlatCall, noted: Mapping[str, str]) -> Iterator[tuple[Expr, QParams]]:
    """The grids of data and weight."""
    text = noted.get(source_of(call.call) or "")
    if text is None or call.op not in OPS or OPS[call.op].kind != "linear":
        return
    data, weight = (QParams(**params) for params in json.loads(text))
    if data.dtype == dtype_of(call.data[0]):
        yield call.data[0], data
    if weight.dtype == dtype_of(call.data[1]):
        yield call.data[1], weight.with_(axis=_output_axis(call)) if weight.per_channel else weight


def _of_table(call: FlatCall, noted: Mapping[str, str]) -> Iterator[tuple[Expr, QParams]]:
    """The grids of operand and result."""
    text = noted.get(source_of(call.call) or "")
    if text is not None and call.op == "qnn.lut":
        grids = (QParams(**params) for params in json.loads(text))
        for tensor, grid in zip((call.data[0], call.var), grids, strict=True):
            if grid.dtype == dtype_of(tensor):
                yield tensor, grid


def _output_axis(call: FlatCall) -> int:
    layout = attrs_of(call.call).get("kernel_layout")
    return str(layout).index("O") if layout else 0


def _pass_on(call: FlatCall, grids: Grids) -> None:
    """Integers that an operator of TVM's reads and writes lie on one grid."""
    dtype = dtype_of(call.results[-1])
    if call.op not in _SAME_GRID | _ON_SUMS or "int" not in dtype:
        return
    same = [tensor for tensor in (*call.data, *call.results) if dtype_of(tensor) == dtype]
    known = next((tensor for tensor in same if tensor in grids), None)
    if known is None:
        return
    if not grids[known].per_channel or call.op in _ON_SUMS:
        for tensor in same:
            grids.setdefault(tensor, grids[known])
    elif call.op in MOVES:
        _pass_along_axis(call, grids)


def _pass_along_axis(call: FlatCall, grids: Grids) -> None:
    """Parameters per channel through a call that keeps their axis whole."""
    data, result = call.data[0], call.var
    after = [MOVES[call.op](call.call, axis) for axis in range(len(shape_of(data) or ()))]
    if data in grids:
        axis = after[grids[data].axis or 0]
        if axis is not None:
            grids.setdefault(result, grids[data].with_(axis=axis))
    elif after.count(grids[result].axis) == 1:
        grids[data] = grids[result].with_(axis=after.index(grids[result].axis))
