"""The whole flow on a small network that ships with the package, checked at every step."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tvm_qat import compiler
from tvm_qat.package import Package
from tvm_qat.report import Report
from tvm_qat.verification.evaluate import evaluate_module

Array = npt.NDArray[Any]
MODELS = ("digits_cnn", "digits_mlp")
_ROUNDS = 50
_BATCH = 50


@dataclass(frozen=True)
class Outcome:
    """accuracies in percent of `images` held-out digits; latencies in seconds, medians of one image.

    largest_steps : largest difference between compiled code and simulation, in steps of the last
        quantized tensor. differing : share of the values that differ at all.
    """

    model: str
    images: int
    float_accuracy: float
    simulated_accuracy: float
    compiled_accuracy: float
    largest_steps: float
    differing: float
    seconds: float
    onnxruntime_seconds: float | None
    package_bytes: int
    model_bytes: int
    report: Report

    @property
    def passed(self) -> bool:
        """Whether compiled code is within one step of what training simulated."""
        return self.largest_steps <= 1.0

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in asdict(self).items() if name != "report"}
        return {**fields, "passed": self.passed, **self.report.to_json()}


@contextmanager
def demo_files() -> Iterator[Path]:
    """The folder of the models and images that ship with the package."""
    with resources.as_file(resources.files("tvm_qat") / "data" / "demo") as folder:
        yield folder


def run(name: str, target: Any = "native", progress: Callable[[str, float], None] | None = None) -> Outcome:
    """Import, compile, run and compare one of MODELS."""
    with demo_files() as folder:
        return _run(folder, name, target, progress or (lambda _stage, _share: None))


def _run(folder: Path, name: str, target: Any, progress: Callable[[str, float], None]) -> Outcome:
    facts = json.loads((folder / "digits.json").read_text())
    about = facts["models"][name]
    model = folder / about["file"]
    images, labels = _digits(folder, facts["input"]["image_scale"])
    progress("compiling", 0.0)
    package = compiler.compile(str(model), target)
    batch = package.inputs[0].shape[0]
    size = batch if isinstance(batch, int) else _BATCH
    compiled = _in_batches(lambda x: _first(package.run([x])), images, size)
    source = compiler.as_module(_for_any_batch(model))
    simulated = _in_batches(
        lambda x: evaluate_module(source, [x])[0], images, _BATCH,
        lambda share: progress("simulating", 0.1 + 0.8 * share),
    )  # fmt: skip
    progress("timing", 0.9)
    ours, theirs = _latencies(package, model, images[:1])
    difference = np.abs(compiled.astype(np.float64) - simulated)
    return Outcome(
        model=name, images=len(images), float_accuracy=about["accuracy_float"],
        simulated_accuracy=_accuracy(simulated, labels), compiled_accuracy=_accuracy(compiled, labels),
        largest_steps=round(float(difference.max()) / _step(package, about), 3),
        differing=float(np.mean(difference > 1e-6)), seconds=ours, onnxruntime_seconds=theirs,
        package_bytes=len(package.to_bytes()), model_bytes=model.stat().st_size,
        report=compiler.inspect(package),
    )  # fmt: skip


def _digits(folder: Path, scale: float) -> tuple[Array, Array]:
    """Held-out images, float32 (N, 1, 16, 16), and their digits."""
    with np.load(folder / "digits.npz", allow_pickle=False) as data:
        return data["images"].astype(np.float32) * np.float32(scale), data["labels"]


def _for_any_batch(path: Path) -> Any:
    """The model with its batch unknown: simulating many images at once is many times faster."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    return model


def _in_batches(
    evaluate: Callable[[Array], Array], images: Array, size: int,
    progress: Callable[[float], None] = lambda _share: None,
) -> Array:  # fmt: skip
    results = []
    for start in range(0, len(images), size):
        progress(start / len(images))
        results.append(evaluate(images[start : start + size]))
    return np.concatenate(results)


def _first(outputs: dict[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _accuracy(outputs: Array, labels: Array) -> float:
    return round(100 * float(np.mean(outputs.argmax(axis=-1) == labels)), 2)


def _step(package: Package, about: dict[str, Any]) -> float:
    """One step of the output: the package knows it; behind a float tail, the logits' step."""
    grid = package.outputs[0].qparams
    return float(grid.scale) if grid is not None else float(about["logit_step"])


def _latencies(package: Package, model: Path, image: Array) -> tuple[float, float | None]:
    """Medians for one image of this package and of onnxruntime, taken in turns."""
    other = _onnxruntime(model, image)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(_ROUNDS):
        ours += package.benchmark([image], repeat=1, number=10)
        theirs += [other()] if other else []
    return statistics.median(ours), statistics.median(theirs) if theirs else None


def _onnxruntime(model: Path, image: Array) -> Callable[[], float] | None:
    """Seconds per run of ten with onnxruntime, on as many threads as TVM has; None without it."""
    try:
        import onnxruntime
    except ImportError:
        return None
    import time

    from tvm_qat.ir import tvm

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = tvm.runtime.num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}

    def timed() -> float:
        session.run(None, feed)
        start = time.perf_counter()
        for _ in range(10):
            session.run(None, feed)
        return (time.perf_counter() - start) / 10

    return timed
