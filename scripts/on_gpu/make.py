"""The first half: packages, inputs and expected outputs; needs TVM's compiler and, for a GPU, nvcc."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from on_gpu import models
from on_gpu.parts import Array, Case, Description, Input, Part, drawn, store
from tests.kernels import fused_cases
from tests.kernels.cases import CASES
from tests.kernels.harness import Case as KernelCase
from tests.kernels.harness import expected, module_of
from tvm_qat import compiler, kernels
from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var, const, tvm
from tvm_qat.package import build, link
from tvm_qat.package.cuda import check_nvcc
from tvm_qat.package.meta import Meta
from tvm_qat.package.target import parse_target, platform_of, target_json
from tvm_qat.qnn import build as qnn

GEMM = (
    (8, 4096, 4096), (32, 4096, 4096), (128, 768, 768), (4096, 3072, 768), (1024, 1024, 1024),
    (2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192),
)  # fmt: skip
"""Rows, columns, depth. The first are steps of language models and two layers of BERT-base."""

_ROWS, _COLUMNS = 67, 61
"""So many rows of activations and columns of weights differ. Primes: a tile in the wrong place shows."""

_LIBRARIES = ("libtvm_runtime.so", "libtvm_runtime_extra.so", "libtvm_runtime_cuda.so")

Made = tuple[Part, bytes, dict[str, Array]]


def make(
    folder: Path, arch: str, only: list[str], files: list[Path], bench: Path, say: Callable[[str], object]
) -> None:
    """Write the parts.

    arch : e.g. sm_90, or `cpu` for a rehearsal without a GPU. only : parts or groups; all if empty.
    files : models of the user's. bench : the folder of the benchmark's networks.
    """
    device = "cpu" if arch == "cpu" else "cuda"
    target = parse_target("native" if arch == "cpu" else {"kind": "cuda", "arch": arch})
    check_nvcc(target)
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for name, made in [*_kernel_parts(target), *_gemm_parts(target), *models.parts(target, bench, files)]:
        if only and not name & set(only):
            continue
        begun = time.perf_counter()
        part, library, arrays = made()
        store(folder, part, library, arrays)
        say(f"made {part.name} ({time.perf_counter() - begun:.0f} s)")
        done.append(part)
    _copy_runtime(folder / "lib", device)
    versions = {"tvm": str(tvm.__version__), "numpy": np.__version__}
    Description(device, arch, versions, tuple(done)).write(folder)


def _copy_runtime(to: Path, device: str) -> None:
    """TVM's runtime of the very version that made the packages, for a machine that has none."""
    to.mkdir(exist_ok=True)
    home = Path(tvm.__file__).parent / "lib"
    for name in _LIBRARIES[: 3 if device == "cuda" else 2]:
        shutil.copyfile(home / name, to / name)


def _kernel_parts(target: Any) -> Iterator[tuple[set[str], Callable[[], Made]]]:
    groups = {op.removeprefix("qnn."): cases for op, cases in CASES.items()}
    groups["fused"] = lambda: [*fused_cases.conv_cases(), *fused_cases.other_cases()]
    for name, cases in groups.items():
        yield {name, "kernels"}, lambda n=name, c=cases: _kernels(n, c(), target)


def _kernels(name: str, cases: list[KernelCase], target: Any) -> Made:
    """All cases of one operator, in one library."""
    mod = module_of(cases)
    lowered = kernels.finish(target)(kernels.lower(mod, target))
    code = link.Code(build.executable_of(lowered, target), None, _nameless(target))
    library = link.members_of(code, foreign=False, cross_compiler=None)["mod.so"]
    arrays: dict[str, Array] = {}
    described = []
    for i, one in enumerate(cases):
        arrays |= {f"{i}.in{k}": np.asarray(array) for k, array in enumerate(one.inputs)}
        arrays[f"{i}.out0"] = want = expected(mod, i, one)
        inputs = tuple(Input(x.shape, str(x.dtype)) for x in map(np.asarray, one.inputs))
        described.append(Case(one.name, f"case{i}", inputs, (want.shape,)))
    return Part(name, "kernels", tuple(described)), library, arrays


def _nameless(target: Any) -> Meta:
    """What linking wants to know of functions that are no model."""
    return Meta((), (), target_json(target), platform_of(target), {})


def _gemm_parts(target: Any) -> Iterator[tuple[set[str], Callable[[], Made]]]:
    for size in GEMM:
        yield {_gemm_name(size), "gemm"}, lambda size=size: gemm(size, target)


def _gemm_name(size: tuple[int, int, int]) -> str:
    return "gemm-" + "x".join(map(str, size))


def gemm(size: tuple[int, int, int], target: Any) -> Made:
    """int8 times constant int8, sums in int32, as torch._int_mm gives them."""
    rows, columns, depth = size
    weight = np.random.default_rng(1).integers(-128, 128, (min(columns, _COLUMNS), depth)).astype(np.int8)
    given = drawn((rows, depth), "int8", 2, distinct=(min(rows, _ROWS), depth))
    few = drawn(given.distinct, "int8", 2)
    sums = models.inputs_of([few])[0].astype(np.int64) @ weight.T.astype(np.int64)
    whole = models.repeated(weight, (columns, depth))
    package = compiler.compile(_product(rows, whole), target)
    case = Case(_gemm_name(size), "main", (given,), ((rows, columns),))
    part = Part(case.name, "gemm", (case,), rows * columns * depth, size)
    return part, package.members()["mod.so"], {"0.out0": sums.astype(np.int32)}


def _product(rows: int, weight: Array) -> IRModule:
    builder, x = BlockBuilder(), Var("x", TensorType((rows, weight.shape[1]), "int8"))
    with builder.function("main", [x], attrs={"global_symbol": "main"}):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(qnn.dense(x, const(weight))))
        builder.emit_func_output(result)
    return builder.get()
