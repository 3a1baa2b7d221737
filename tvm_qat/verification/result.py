"""What `verify` returns: stage by stage, layer by layer, and the quantizers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import IRModule
from tvm_qat.package import Package
from tvm_qat.verification.difference import Figures
from tvm_qat.verification.health import Quantizer


@dataclass(frozen=True)
class Layer:
    """One tensor of a stage against the stage before.

    name : of the source node whose work it is. figures : of the layer by itself, on the inputs that the
    simulation has there; of compiled code and of the canonical module as they run. inherited : as the
    stage runs, with the error of the layers before; None where there is no other. quantizer : node of
    the fake quantization that gives the tensor its grid. seconds : of the kernel, in the compiled
    stage where a profile was asked for.
    """

    name: str
    op: str
    figures: Figures
    inherited: Figures | None = None
    quantizer: str | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "op": self.op,
            **asdict(self.figures),
            "inherited": asdict(self.inherited) if self.inherited is not None else None,
            "quantizer": self.quantizer,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Stage:
    """against : the stage that the figures compare with. unnamed : kernels of TVM's own that have no row."""

    name: str
    against: str
    layers: tuple[Layer, ...]
    unnamed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "against": self.against,
            "unnamed": self.unnamed,
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True)
class Summary:
    """A stage in one row, over its layers on a grid; of compiled code over all.

    first_layer : the first that differs by more than ties explain, else the first that differs.
    worst_layer : whose own difference is largest for the power of its tensor, over all layers.
    inherited_max_steps, inherited_differing : as the stage runs, with what layers inherit.
    """

    elements: int
    differing: int
    unexplained: int
    max_steps: float
    mean_steps: float
    tie_share: float
    inherited_differing: int | None
    inherited_max_steps: float | None
    layers: int
    differing_layers: int
    first_layer: str | None
    worst_layer: str | None


def summary_of(stage: Stage) -> Summary:
    exact = stage.name == "compiled"
    rows = [layer for layer in stage.layers if exact or layer.figures.max_steps is not None]
    figures = [layer.figures for layer in rows]
    elements, differing = sum(f.elements for f in figures), sum(f.differing for f in figures)
    unexplained = sum(f.unexplained for f in figures)
    inherited = [layer.inherited for layer in rows if layer.inherited is not None]
    differ = [layer for layer in rows if layer.figures.differing]
    wrong = [layer for layer in differ if layer.figures.unexplained]
    worst = max(differ, key=lambda layer: layer.figures.noise, default=None)
    return Summary(
        elements,
        differing,
        unexplained,
        max([f.max_steps or 0.0 for f in figures], default=0.0),
        sum((f.mean_steps or 0.0) * f.elements for f in figures) / max(elements, 1),
        1 - unexplained / differing if differing else 1.0,
        sum(f.differing for f in inherited) if inherited else None,
        max((f.max_steps or 0.0 for f in inherited), default=None),
        len(rows),
        len(differ),
        next((layer.name for layer in [*wrong, *differ]), None),
        worst.name if worst is not None else None,
    )


@dataclass(frozen=True)
class Accuracy:
    """Share of the samples whose label is the greatest output, or among the five greatest."""

    top1: float
    top5: float | None


@dataclass(frozen=True)
class Trial:
    """keep_float : nodes that were in float. max_steps : most that an element of an output was off."""

    keep_float: tuple[str, ...]
    max_steps: float


@dataclass(frozen=True)
class Suggestion:
    """Which nodes to keep in float so that the outputs are `within` steps of the simulation.

    before, after : most steps as things are, and with `keep_float`, which is to be given to `compile`
    as it stands. layers : the names of the layers whose nodes those are. reached : `after` is within
    the limit; if not, nothing comes nearer than this did. fewest : all smaller sets of layers that
    differ by themselves were measured; where it is false, it is only known that no single member can
    be left out. trials : every set that was measured, the one without a suggestion first.
    """

    within: float
    before: float
    after: float
    layers: tuple[str, ...]
    keep_float: tuple[str, ...]
    reached: bool
    fewest: bool
    trials: tuple[Trial, ...]

    @property
    def flag(self) -> str:
        """What `compile` is to be given, for a shell; empty where nothing is to be kept."""
        return f"--keep-float {shlex.join(self.keep_float)}" if self.layers else ""

    def in_words(self) -> list[str]:
        """Whether there is a set of layers that is enough, and what is best."""
        was, limit = f"{self.before:.3g} steps from the simulation", f"{self.within:g}"
        if self.before <= self.within:
            return [f"none is needed: outputs are at most {was}, the limit is {limit}"]
        lines = [] if self.reached else [f"no set of layers brings the outputs within {limit} steps"]
        if not self.layers:
            return [*lines, f"nothing that was tried brings them nearer: they are {was}"]
        number = f"{len(self.layers)} layer{'s' if len(self.layers) > 1 else ''}"
        kind = "no smaller set does" if self.fewest else "none can be left out"
        best = "" if self.reached else "best: "
        return [*lines, f"{best}{number}, {self.before:.3g} steps -> {self.after:.3g}; {kind}"]


@dataclass(frozen=True)
class Subject:
    """What was compared, for those who measure more of it.

    source : the module as imported, with known shapes. inputs : the first that it ran on, by name.
    """

    source: IRModule
    package: Package
    inputs: Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Verification:
    """agreement : share of rows of the outputs whose greatest element is the simulation's; by stage.
    failures : in plain words. suggestion : where one was asked for. subject : not part of the JSON.
    """

    model: str
    target: dict[str, Any]
    rounding: str
    samples: int
    seed: int | None
    stages: tuple[Stage, ...]
    quantizers: tuple[Quantizer, ...]
    agreement: dict[str, float]
    fused_differing: int
    accuracy: dict[str, Accuracy] | None = None
    suggestion: Suggestion | None = None
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    subject: Subject | None = field(default=None, repr=False, compare=False)

    @property
    def summaries(self) -> dict[str, Summary]:
        """By the names of both stages, as `reference_vs_simulation`."""
        return {f"{stage.name}_vs_{stage.against}": summary_of(stage) for stage in self.stages}

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        accuracy = {name: asdict(found) for name, found in (self.accuracy or {}).items()}
        return {
            "model": self.model,
            "target": self.target,
            "rounding": self.rounding,
            "samples": self.samples,
            "seed": self.seed,
            "seconds": self.seconds,
            "summary": {
                **{name: asdict(found) for name, found in self.summaries.items()},
                "fused_vs_reference": {"differing": self.fused_differing},
                "agreement": self.agreement,
                "accuracy": accuracy or None,
                "warnings": sum(len(quantizer.warnings) for quantizer in self.quantizers),
                "passed": self.passed,
                "failures": list(self.failures),
            },
            "suggestion": None if self.suggestion is None else _plain(asdict(self.suggestion)),
            "stages": [stage.to_json() for stage in self.stages],
            "quantizers": [_plain(asdict(quantizer)) for quantizer in self.quantizers],
        }


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
