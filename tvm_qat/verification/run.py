"""`verify`: does compiled code compute what training meant, and if not, where does it leave it?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvm_qat import pipeline
from tvm_qat.compiler import as_module, compile_folded
from tvm_qat.errors import InputError, located
from tvm_qat.ir import IRModule, source_of
from tvm_qat.options import ModelKeywords, split
from tvm_qat.package import Package
from tvm_qat.package.container import is_tar
from tvm_qat.package.signature import inputs_of
from tvm_qat.passes.keep_float import keep_float
from tvm_qat.verification import inputs
from tvm_qat.verification.compiled import Compiled
from tvm_qat.verification.engines import check_engine, engine_of
from tvm_qat.verification.modules import Modules, modules_of, specialize
from tvm_qat.verification.other import Other
from tvm_qat.verification.result import Accuracy, Subject, Verification
from tvm_qat.verification.stages import Outputs, Stages
from tvm_qat.verification.suggest import suggest as suggested
from tvm_qat.verification.trials import Trials

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tvm_qat.importers.options import ImportKeywords

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]

SAMPLES = 4
"""Drawn where no data is given."""

_PREPARED = 0.4
"""Share of the work that is done before the first input runs."""

_VERIFIED = 0.5
"""Share of the work that is done before a suggestion is looked for."""


def verify(
    model: Any, data: Mapping[str, Any] | None = None, *, labels: Any = None, target: Any = "native",
    seed: int = 0, samples: int | None = None, max_steps: float | None = None,
    min_agreement: float | None = None, against: str | None = None, profile: bool = False,
    suggest: float | None = None, progress: Progress | None = None, **options: Unpack[ModelKeywords],
) -> Verification:  # fmt: skip
    """Compare the stages of a model layer by layer: simulation, canonical, reference, compiled.

    Parameters
    ----------
    model, target, options : as for `compile`; the target must be one that this machine runs.
    data : arrays by input name, whose first dimension is a multiple of the model's. Without it,
        `samples` random ones are drawn from `seed` (see inputs.drawn).
    labels : whole numbers, one for each sample: the class that the first output should have.
    max_steps : most steps that a layer may differ by from the simulation, on the simulation's inputs.
    min_agreement : least share of rows of the outputs whose greatest element must be the simulation's.
    against : another engine that runs the model too, one of engines.ENGINES; a stage more.
    profile : also time the kernels on the first input, for `Layer.seconds` of the compiled stage.
    suggest : name the fewest layers to keep in float so that no output is more steps than this from the
        simulation, for `Verification.suggestion`; see the module of this name.
    progress : called with the name of the stage that begins, and the share of all work done before it.

    The result is not `passed` if one of the two is missed, or if compiled code differs from the
    reference anywhere. Raises InputError if the model, the data or an option is at fault, and
    MissingDependencyError where the other engine is not installed.
    """
    begin = time.perf_counter()
    if against is not None:
        check_engine(against)
    show, show_trials = _shared(progress or _silent, 1.0 if suggest is None else _VERIFIED)
    show("import", 0.0)
    imports, passes = split(options)
    source = keep_float(_source(model, **imports), passes.keep_float, passes.only_int8)
    drawing = None if data is not None else (samples or SAMPLES, seed)
    source, runs, count = with_data(source, data, drawing)
    classes = _labels(labels, count)
    show("passes", 0.2 * _PREPARED)
    modules = modules_of(source, rounding=passes.rounding, disabled=passes.disabled_passes)
    show("compile", 0.5 * _PREPARED)
    package = compile_folded(source, modules.fused, target)
    other = None if against is None else _other(against, model, modules, package)
    stages = Stages(modules, Compiled(modules.fused, package), other)
    outputs = list(_run(stages, runs, show))
    layers = stages.stages(package.profile(runs[0]) if profile else ())
    suggestion = None
    if suggest is not None:
        trials = Trials(modules, source, passes, runs, outputs, show_trials)
        suggestion = suggested(modules, source, layers[1].layers, suggest, trials)
    found = Verification(
        model=_name(model), target=package.meta.target, rounding=passes.rounding, samples=count,
        seed=seed if data is None else None, stages=layers,
        quantizers=stages.quantizers(), agreement=_agreement(outputs), fused_differing=stages.fused_differing,
        accuracy=None if classes is None else _accuracy(outputs, classes),
        suggestion=suggestion, seconds=time.perf_counter() - begin, subject=Subject(source, package, runs[0]),
    )  # fmt: skip
    show_trials("done", 1.0)
    return replace(found, failures=tuple(_failures(found, max_steps, min_agreement)))


def _shared(progress: Progress, share: float) -> tuple[Progress, Progress]:
    """Progress of the first `share` of the work, and of the rest."""
    return (
        lambda stage, done: progress(stage, share * done),
        lambda stage, done: progress(stage, share + (1 - share) * done),
    )


def _silent(_stage: str, _share: float) -> None:
    return None


def _source(model: Any, **options: Unpack[ImportKeywords]) -> IRModule:
    if isinstance(model, str | os.PathLike) and is_tar(model):
        reason = "is a package, which does not hold what training said"
        raise InputError(located(reason, file=str(model), remedy="give the model it was compiled from"))
    return as_module(model, **options)


def with_data(
    source: IRModule, data: Mapping[str, Any] | None, drawing: tuple[int, int] | None
) -> tuple[IRModule, list[dict[str, Array]], int]:
    """The module with known shapes, the inputs one after the other, and the number of samples.

    drawing : samples and seed, where there is no data.
    """
    if data is None:
        assert drawing is not None
        infos = inputs_of(pipeline.run(source, until="extract_qparams"))
        data = inputs.drawn(source, infos, *drawing)
    runs = inputs.cut(data, inputs_of(source))
    fixed = specialize(source, {name: array.shape for name, array in runs[0].items()})
    batch = max((len(array) for array in runs[0].values() if array.ndim), default=1)
    return fixed, runs, batch * len(runs)


def _labels(labels: Any, samples: int) -> Array | None:
    if labels is None:
        return None
    classes = np.asarray(labels)
    if classes.size != samples or classes.dtype.kind not in "iu":
        reason = f"labels are {classes.size} values of {classes.dtype} for {samples} samples"
        raise InputError(located(reason, remedy="give one whole number for each sample"))
    return classes.reshape(-1)


def _run(stages: Stages, runs: Sequence[Mapping[str, Array]], show: Progress) -> Iterator[Outputs]:
    for number, run in enumerate(runs):
        stage = f"input {number + 1} of {len(runs)}"

        def tick(share: float, number: int = number, stage: str = stage) -> None:
            show(stage, _PREPARED + (1 - _PREPARED) * (number + share) / len(runs))

        tick(0.0)
        yield stages.add(run, tick)


def _other(name: str, model: Any, modules: Modules, package: Package) -> Other:
    nodes = [source_of(point.quantize) for point in modules.points if point.quantize is not None]
    engine = engine_of(name, model, modules.simulation, [node for node in nodes if node])
    return Other(name, engine, package.outputs)


def _name(model: Any) -> str:
    return str(model) if isinstance(model, str | os.PathLike) else type(model).__name__


# ---------------------------------------------------------------- what the outputs say


def _agreement(outputs: Sequence[Outputs]) -> dict[str, float]:
    found = {}
    for name in ("reference", "compiled"):
        rows = [
            _same(ours, theirs)
            for output in outputs
            for ours, theirs in zip(getattr(output, name), output.simulation, strict=True)
        ]
        same = np.concatenate(rows) if rows else np.ones(0, bool)
        found[name] = float(same.mean()) if same.size else 1.0
    return found


def _same(ours: Array, theirs: Array) -> Array:
    """Which rows have their greatest element in the same place; of outputs without rows, elements."""
    if not ours.ndim or ours.shape[-1] < 2:
        return np.asarray(ours == theirs).reshape(-1)
    return np.asarray(ours.argmax(-1) == theirs.argmax(-1)).reshape(-1)


def _accuracy(outputs: Sequence[Outputs], classes: Array) -> dict[str, Accuracy]:
    found = {}
    for name in ("simulation", "reference", "compiled"):
        first = np.concatenate([getattr(output, name)[0] for output in outputs])
        if first.size % len(classes):
            reason = f"the first output has {first.size} elements for {len(classes)} labels"
            raise InputError(located(reason, remedy="labels are for models with one row of classes a sample"))
        rows = first.reshape(len(classes), -1)
        order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")
        hits = order == classes[:, None]
        top5 = float(hits[:, :5].any(1).mean()) if rows.shape[1] > 5 else None
        found[name] = Accuracy(float(hits[:, 0].mean()), top5)
    return found


def _failures(found: Verification, max_steps: float | None, min_agreement: float | None) -> Iterator[str]:
    summaries = found.summaries
    compiled, reference = summaries["compiled_vs_reference"], summaries["reference_vs_simulation"]
    if compiled.differing:
        where = f"{compiled.differing:,} elements, first at {compiled.first_layer}"
        yield f"compiled code differs from the reference in {where}"
    if found.fused_differing:
        yield f"fusing and laying out changed {found.fused_differing:,} elements of the outputs"
    if max_steps is not None and reference.max_steps > max_steps:
        worst = max(
            (layer for stage in found.stages if stage.against == "simulation" for layer in stage.layers),
            key=lambda layer: layer.figures.max_steps or 0.0,
        )
        yield f"{worst.name} is {reference.max_steps:g} steps from the simulation, more than {max_steps:g}"
    agreement = min(found.agreement.values())
    if min_agreement is not None and agreement < min_agreement:
        yield f"{agreement:.2%} of the outputs' rows agree with the simulation, less than {min_agreement:.2%}"
