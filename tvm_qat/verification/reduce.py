"""`verify --reduce`: the smallest part of an ONNX model that still shows a difference or a failure.

Cut around the node at fault, with the tensors of the simulation as inputs; grown until the part shows
what the whole model shows; then made smaller until every node that is left is needed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from onnx import ModelProto

from tvm_qat.compiler import as_module
from tvm_qat.errors import InputError, MissingDependencyError, TvmQatError, located
from tvm_qat.options import ModelKeywords, Options, PassKeywords, split
from tvm_qat.package.files import check_writable, write_atomically, write_npz
from tvm_qat.package.quiet import quiet
from tvm_qat.verification.evaluate import evaluate_module
from tvm_qat.verification.result import Verification
from tvm_qat.verification.run import SAMPLES, Progress, verify, with_data
from tvm_qat.verification.subgraph import Source, source_of_file

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tvm_qat.importers.options import ImportKeywords

Array = npt.NDArray[Any]

FAULTS = (
    TvmQatError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    AssertionError,
)  # fmt: skip
"""What a compilation that fails may raise: our own errors, TVM's (RuntimeError and its kin), and bugs."""

_HEAD = 100
"""Characters of an error's first line that must stay the same."""


@dataclass(frozen=True)
class Symptom:
    """kind : what must show again: a kind of difference, or an exception's class and message.

    layer : where a difference shows first; None for exceptions.
    """

    kind: str
    layer: str | None = None

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}, at {self.layer}"


@dataclass(frozen=True)
class Reduction:
    """model : its nodes have the names that they had. inputs : by name.

    nodes : of the model, without those that constants alone decide. whole : how many there were.
    """

    model: ModelProto
    inputs: dict[str, Array]
    nodes: tuple[str, ...]
    whole: int
    symptom: Symptom

    def write(self, path: str) -> None:
        """The model to `path`, its inputs beside it as npz. Raises InputError."""
        write_npz(inputs_beside(path), self.inputs)
        write_atomically(path, self.model.SerializeToString())


def inputs_beside(path: str) -> str:
    """Where the inputs of a reduced model lie. Raises InputError for a path that no model is written to."""
    target = Path(path)
    if target.suffix.lower() != ".onnx":
        raise InputError(located("is no name for an ONNX file", file=path, remedy="end it in .onnx"))
    beside = target.with_suffix(".npz")
    for file in (target, beside):
        check_writable(file)
    return str(beside)


def reduce(
    model: Any, data: Mapping[str, Any] | None = None, *, target: Any = "native", seed: int = 0,
    samples: int | None = None, max_steps: float | None = None, progress: Progress | None = None,
    **options: Unpack[ModelKeywords],
) -> Reduction | None:  # fmt: skip
    """The smallest part of `model` that still shows what `verify` finds or raises; None if that is nothing.

    What shows: compiled code that differs, fusing that changes the outputs, a layer by itself more than
    max_steps from the simulation, or an exception (of the same class and the same beginning of its
    message). Parameters are those of `verify`; the first input that shows something is used.

    Raises InputError for a model that is not ONNX, for encodings, and where no cut shows it.
    """
    source = reducible(model, **options)
    imports, passes = split(options)
    readable = _readable(source, **imports)
    module = as_module(_first(source, readable), **imports)
    drawing = None if data is not None else (samples or SAMPLES, seed)
    _, runs, _ = with_data(module, data, drawing)
    search = _Search(source, imports, passes, target, max_steps, progress or (lambda stage, share: None))
    for run in runs:
        found = search.symptoms(source.proto, run, source.active, **imports)
        if found:
            return search.reduction(found[0], run, readable)
    return None


def reducible(model: Any, **options: Unpack[ModelKeywords]) -> Source:
    """The nodes of a model. Raises InputError where they cannot be cut out."""
    if options.get("encodings"):
        reason = "a model with encodings cannot be reduced: they name tensors of the whole"
        raise InputError(located(reason, remedy="leave out --reduce"))
    return source_of_file(model, options.get("format"))


def _first(source: Source, count: int) -> ModelProto:
    if count == len(source.active):
        return source.proto
    return source.first(count) if count else source.inputs_alone()


def _least(count: int, holds: Callable[[int], bool]) -> int:
    """The least number from 1 to count for which it holds, as it does for all above."""
    low, high = 1, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _readable(source: Source, **imports: Unpack[ImportKeywords]) -> int:
    """How many of the nodes that compute can be imported, from the first on."""

    def fails(count: int) -> bool:
        try:
            as_module(_first(source, count), **imports)
        except FAULTS as error:
            _release(error)
            return True
        return False

    count = len(source.active)
    return _least(count, fails) - 1 if fails(count) else count


def _release(error: BaseException) -> None:
    """Let go of what the failed call still holds: TVM remarks on builders that die half-way."""
    with quiet():
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = error.__context__ = error.__cause__ = None


@dataclass(frozen=True)
class _Search:
    """Tries parts of one model."""

    source: Source
    imports: ImportKeywords
    passes: Options
    target: Any
    max_steps: float | None
    show: Progress

    def symptoms(
        self, model: ModelProto, run: Mapping[str, Array], nodes: Collection[int],
        **imports: Unpack[ImportKeywords],
    ) -> list[Symptom]:  # fmt: skip
        """What `verify` finds or raises. nodes : those of the model, whose names options may hold."""
        options = self._options(nodes)
        try:
            found = verify(model, run, target=self.target, max_steps=self.max_steps, **imports, **options)
        except MissingDependencyError:
            raise
        except FAULTS as error:
            first = (str(error).strip() or repr(error)).splitlines()[0]
            _release(error)
            return [Symptom(f"{type(error).__name__}: {first[:_HEAD]}")]
        return list(_differences(found, self.max_steps))

    def _options(self, nodes: Collection[int]) -> PassKeywords:
        """The options without names that other nodes have, which would be refused."""
        protos = [self.source.nodes[i] for i in nodes]
        kinds = {node.op_type for node in protos}
        wishes = self.passes.keep_float
        return {
            "rounding": self.passes.rounding,
            "disabled_passes": self.passes.disabled_passes,
            "keep_float": [wish for wish in wishes if any(fnmatchcase(n.name, wish) for n in protos)],
            "only_int8": [kind for kind in self.passes.only_int8 if kind in kinds] or self.passes.only_int8,
        }

    def reduction(self, wanted: Symptom, run: Mapping[str, Array], readable: int) -> Reduction:
        source = self.source
        nodes = list(source.active)
        if wanted.layer is None:
            place = _least(len(nodes), lambda count: self._fails(wanted, count, run))
            nodes, readable = nodes[:place], min(readable, place - 1)
            start = nodes[-1:]
        else:
            start = source.find(wanted.layer) or source.ends
        values = dict(run) | self._values(readable, run)

        def shows(kept: Collection[int]) -> bool:
            model = source.cut(kept, values)
            self.show(f"{len(kept)} of {len(source.active)} nodes", 0.0)
            if model is None:
                return False
            found = self.symptoms(model, _inputs(model, values), kept)
            return wanted.kind in [symptom.kind for symptom in found]

        kept = _shrunk(_grown(source, start, nodes, shows), shows)
        model = source.cut(kept, values)
        if model is None or not shows(kept):
            raise InputError(
                located(f"no part of the model shows: {wanted}", remedy="report the model itself")
            )
        names = tuple(source.nodes[i].name for i in kept)
        return Reduction(model, _inputs(model, values), names, len(source.active), wanted)

    def _fails(self, wanted: Symptom, count: int, run: Mapping[str, Array]) -> bool:
        nodes = self.source.active[:count]
        self.show(f"first {count} of {len(self.source.active)} nodes", 0.0)
        return wanted in self.symptoms(self.source.first(count), run, nodes, **self.imports)

    def _values(self, count: int, run: Mapping[str, Array]) -> dict[str, Array]:
        """What the simulation computes, of the first nodes."""
        names = self.source.tensors(self.source.active[:count])
        if not names:
            return {}
        module = as_module(self.source.first(count, names), **self.imports)
        return dict(zip(names, evaluate_module(module, run), strict=True))


def _inputs(model: ModelProto, values: Mapping[str, Array]) -> dict[str, Array]:
    return {info.name: values[info.name] for info in model.graph.input}


def _differences(found: Verification, max_steps: float | None) -> Iterator[Symptom]:
    summaries = found.summaries
    compiled, reference = summaries["compiled_vs_reference"], summaries["reference_vs_simulation"]
    if compiled.differing:
        yield Symptom("compiled code differs from the reference", compiled.first_layer)
    if found.fused_differing:
        yield Symptom("fusing and laying out changes the outputs", "the outputs")
    if max_steps is not None and reference.max_steps > max_steps:
        layers = [layer for stage in found.stages if stage.name == "reference" for layer in stage.layers]
        worst = max(layers, key=lambda layer: layer.figures.max_steps or 0.0)
        yield Symptom(f"a layer is more than {max_steps:g} steps from the simulation", worst.name)


# ---------------------------------------------------------------- which nodes to keep


def _grown(
    source: Source, start: Collection[int], nodes: list[int], shows: Callable[[list[int]], bool]
) -> list[int]:
    """`start` and its neighbours, theirs and so on until the part shows it; at most all `nodes`."""
    kept, radius, allowed = set(start), 2, frozenset(nodes)
    while True:
        before = len(kept)
        for _ in range(radius):
            kept |= {other for i in kept for other in source.neighbours[i] & allowed}
        if len(kept) == before:
            return nodes
        if shows(sorted(kept)):
            return sorted(kept)
        radius *= 2


def _shrunk(kept: list[int], shows: Callable[[list[int]], bool]) -> list[int]:
    """`kept` without runs of nodes, ever shorter ones, until no single node can be left out.

    After Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002).
    """
    size = len(kept) // 2
    while size:
        place, before = 0, len(kept)
        while place < len(kept) and len(kept) > 1:
            fewer = kept[:place] + kept[place + size :]
            if fewer and shows(fewer):
                kept = fewer
            else:
                place += size
        size = size // 2 if size > 1 or len(kept) == before else 1
    return kept
