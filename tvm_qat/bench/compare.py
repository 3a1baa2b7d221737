"""One model on several runtimes: compile, start, take turns, and put the figures together."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat import compiler
from tvm_qat.bench import layers
from tvm_qat.bench.engines import OURS
from tvm_qat.bench.onnx_shapes import with_shapes
from tvm_qat.bench.runners import Contender, Runner, check_installed, interleave, started
from tvm_qat.bench.timing import Figures, Ratio, figures, ratio
from tvm_qat.errors import InputError, located
from tvm_qat.ir import tvm
from tvm_qat.package import Package
from tvm_qat.package.files import write_npz

Array = npt.NDArray[Any]
Progress = Callable[[str, float], None]
SCHEMA = 1
_INPUTS = "inputs.npz"


@dataclass(frozen=True)
class Options:
    """against : names of other runtimes. float_model, tflite : further files of the same network.

    turn_seconds : how long one runtime stays on, about. rounds : turns that each takes.
    first : the measured processes go before others, where the system allows it.
    """

    against: tuple[str, ...] = ("onnxruntime",)
    float_model: str | None = None
    tflite: str | None = None
    inputs: Mapping[str, Array] | None = None
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    threads: int = 1
    rounds: int = 20
    turn_seconds: float = 0.15
    target: Any = "native"
    rounding: str | None = None
    per_layer: bool = False
    first: bool = False


@dataclass(frozen=True)
class Row:
    """What was found out about one runtime.

    ratio : ours over this one; None for ours. agreement : cosine of its first output and
    ours, None where it reads another file.
    memory, base : peak bytes of its process, and what Python held before the runtime was imported.
    """

    label: str
    version: str
    figures: Figures
    ratio: Ratio | None
    agreement: float | None
    load_seconds: float
    first_seconds: float
    memory: int
    base: int
    file_bytes: int

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        inner = {"figures": self.figures.to_json(), "ratio": self.ratio.to_json() if self.ratio else None}
        return {**plain, **inner}


@dataclass(frozen=True)
class Comparison:
    """rows : ours first. weight_bytes : of the model's constants once they are integers."""

    model: str
    rows: tuple[Row, ...]
    machine: dict[str, Any]
    compile_seconds: float
    package_bytes: int
    weight_bytes: int
    macs: int
    profile: layers.Profile | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.model,
            "machine": self.machine,
            "compile_seconds": self.compile_seconds,
            "package_bytes": self.package_bytes,
            "weight_bytes": self.weight_bytes,
            "macs": self.macs,
            "runtimes": [row.to_json() for row in self.rows],
            "profile": self.profile.to_json() if self.profile else None,
        }


def compare(model: str, options: Options, progress: Progress | None = None) -> Comparison:
    """Compile `model`, an ONNX file, and measure it beside the runtimes of the options.

    Raises MissingDependencyError before any work if a runtime is not installed, and InputError if
    one of them cannot run its file.
    """
    show = progress or (lambda _stage, _share: None)
    names = [OURS, *options.against, *(["litert"] if options.tflite else [])]
    _check(names, options)
    check_installed(names)
    load_before = _load_average()
    with tempfile.TemporaryDirectory(prefix="tvm_qat_bench_") as name:
        folder = Path(name)
        show("compiling", 0.0)
        shaped = with_shapes(model, options.input_shapes, folder / "model.onnx")
        begin = time.perf_counter()
        package = compiler.compile(shaped, options.target, rounding=options.rounding)
        saved = package.to_bytes()
        seconds = time.perf_counter() - begin
        (folder / "package.tar").write_bytes(saved)
        data = _write_inputs(package, options, folder)
        contenders = _contenders(shaped, package, options, folder)
        with started(contenders, first=options.first) as runners:
            rows = _measured(contenders, runners, options, folder, show)
        show("layers", 0.95)
        found = layers.profile(folder / "package.tar", data, options.threads) if options.per_layer else None
        return Comparison(
            os.path.basename(model), rows, _machine(options, load_before), seconds, len(saved),
            int(package.totals["weight_bytes"]), int(package.totals["macs"]), found,
        )  # fmt: skip


def _check(names: Sequence[str], options: Options) -> None:
    if OURS in options.against:
        raise InputError(f"{OURS} is measured anyway; name the others with --against")
    if "litert" in options.against and not options.tflite:
        raise InputError("litert reads TFLite files only; give it the network's with --tflite FILE")
    if len(set(names)) != len(names):
        raise InputError("a runtime is named twice")
    for file in (options.float_model, options.tflite):
        if file and not os.path.isfile(file):
            raise InputError(located("cannot be read: no such file", file=file))


def _contenders(model: str, package: Package, options: Options, folder: Path) -> list[Contender]:
    library = package.members().get("mod.so")
    if library is None:
        remedy = "install a C compiler and compile for native"
        raise InputError(located("the package holds no linked code to measure", file=model, remedy=remedy))
    (folder / "mod.so").write_bytes(library)
    files = [(OURS, OURS, str(folder / "mod.so"))]
    others = [name for name in options.against if name != "litert"]
    files += [(name, name, model) for name in others]
    if options.tflite:
        files.append(("litert", "litert", options.tflite))
    if options.float_model:
        plain = with_shapes(options.float_model, options.input_shapes, folder / "float.onnx")
        files += [(f"{name} float", name, plain) for name in others]
    data = str(folder / _INPUTS)
    return [Contender(label, name, file, data, options.threads) for label, name, file in files]


def _write_inputs(package: Package, options: Options, folder: Path) -> str:
    arrays = dict(package.random_inputs())
    for name, array in (options.inputs or {}).items():
        if name not in arrays:
            raise InputError(f"the model has no input {name!r}; its inputs are {', '.join(arrays)}")
        arrays[name] = array
    package.run(arrays)  # says in one line what is wrong with them
    write_npz(folder / _INPUTS, arrays)
    return str(folder / _INPUTS)


def _measured(
    contenders: Sequence[Contender], runners: Sequence[Runner], options: Options, folder: Path, show: Progress
) -> tuple[Row, ...]:
    turns = interleave(
        runners, rounds=options.rounds, turn_seconds=options.turn_seconds,
        progress=lambda share: show("taking turns", 0.2 + 0.75 * min(share, 1.0)),
    )  # fmt: skip
    ours = runners[0].label
    expected = _first_output(runners[0], folder)
    rows = []
    for contender, runner in zip(contenders, runners, strict=True):
        mine = runner.label == ours
        memory = runner.ask("memory")
        rows.append(
            Row(
                runner.label, runner.facts["version"], figures(turns[runner.label]),
                None if mine else ratio(turns[ours], turns[runner.label]),
                _agreement(contender, runner, expected, folder),
                runner.facts["load_seconds"], runner.facts["first_seconds"],
                memory["peak"], memory["base"], os.path.getsize(contender.model),
            )
        )  # fmt: skip
    return tuple(rows)


def _agreement(contender: Contender, runner: Runner, expected: Array, folder: Path) -> float | None:
    """LiteRT's file has the same layers, and weights of its own."""
    if contender.runtime in (OURS, "litert"):
        return None
    return _cosine(expected, _first_output(runner, folder))


def _first_output(runner: Runner, folder: Path) -> Array:
    file = folder / "outputs.npz"
    runner.ask(f"outputs {file}")
    with np.load(file, allow_pickle=False) as data:
        return np.asarray(data[data.files[0]], np.float64).reshape(-1)


def _cosine(a: Array, b: Array) -> float | None:
    """1 for equal directions; None where the sizes differ or one of them is zero."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b)) if a.shape == b.shape else 0.0
    return float(a @ b) / norms if norms else None


def _load_average() -> float:
    return os.getloadavg()[0]


def _machine(options: Options, load_before: float) -> dict[str, Any]:
    return {
        "processor": f"{_processor()} ({tvm.target.codegen.llvm_get_system_cpu()})",
        "cores": os.cpu_count(),
        "threads": options.threads,
        "rounds": options.rounds,
        "target": str(options.target),
        "load_before": load_before,
        "load_after": _load_average(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return next(names, platform.processor())
    except OSError:
        return platform.processor()
