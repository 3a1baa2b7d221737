"""Runs the CUDA source of a model on the CPU: g++ compiles it against tests/cuda/emulator.h."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm_ffi

from tvm_qat import kernels
from tvm_qat.ir import IRModule, tvm
from tvm_qat.kernels.build import build_passes
from tvm_qat.kernels.cuda.source import device_code
from tvm_qat.kernels.one_call import plan_of
from tvm_qat.kernels.run_func import CONSTANTS, WORKSPACE
from tvm_qat.package import build, cuda
from tvm_qat.package.target import parse_target

Array = np.ndarray[Any, Any]
TARGET = {"kind": "cuda", "arch": "sm_80"}
OLDER = {"kind": "cuda", "arch": "sm_75"}
"""Without tensor cores of the kind that kernels use, and without asynchronous copies."""

EMULATOR = Path(__file__).resolve().parents[1] / "cuda" / "emulator.h"

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
needs_nvcc = pytest.mark.skipif(cuda.find_nvcc() is None, reason="needs nvcc")
needs_no_driver = pytest.mark.skipif(find_library("cuda") is not None, reason="there is a driver")
"""For what is said where there is none."""

KERNEL = re.compile(r'extern "C" __global__ void __launch_bounds__\((\d+)\) (\w+)\(([^)]*)\) \{')
_SHARED = re.compile(r"extern __shared__ (?:alignas\(\d+\) |__align__\(\d+\) )?([\w ]+?) (\w+)\[\];")


@dataclass(frozen=True)
class Launch:
    """One kernel: its symbol in the source, parameters in order, blocks and threads, shared bytes."""

    symbol: str
    parameters: tuple[str, ...]
    threads: int


class Emulated:
    """A lowered module for a GPU, to be run on the CPU."""

    def __init__(self, folded: IRModule, folder: Path, target: Any = None) -> None:
        self.target = parse_target(target or TARGET)
        self._planned = _planned(kernels.lower(folded, self.target), self.target)
        whole = kernels.finish(self.target)(kernels.lower(folded, self.target))
        self.source = source_of(whole, self.target)
        self.launches = {found[1]: _launch(found) for found in KERNEL.findall(self.source)}
        self._library = ctypes.CDLL(str(compiled_source(self.source, folder)))

    def run(
        self, inputs: Sequence[Array], function: str = "main", early: bool = False, backwards: bool = False
    ) -> list[Array]:
        """The outputs, in order; copies to shared memory are done at once or as late as may be."""
        plan = plan_of(self._planned[function])
        result = self._planned[function].body.body
        results = [plan.place(x) for x in (plan.tuples[result].fields if result in plan.tuples else [result])]
        count = len(self._planned[function].params)
        made = [np.zeros(p.shape, p.dtype) for p in plan.arguments[count:]]
        bases = [_bytes(np.array(x, order="C")) for x in (*inputs, *made)]
        memory = dict(enumerate(bases))
        memory |= {WORKSPACE: _aligned(plan.size), CONSTANTS: _bytes(plan.constants.to_numpy())}
        for step in plan.steps:
            operands = [memory[place.base][place.offset :] for place in step.operands]
            self._launch(step.kernel, operands, early, backwards)
        return [_read(memory, place) for place in results]

    def _launch(self, function: str, operands: Sequence[Array], early: bool, backwards: bool) -> None:
        func = self._planned[function]
        names = (_plain(param.name) for param in func.params)
        by_name = dict(zip(names, operands, strict=True)) | _between(func)
        symbols = [f"{function}_kernel", *(f"{function}_kernel_{i}" for i in range(1, 9))]
        launches = [self.launches[symbol] for symbol in symbols if symbol in self.launches]
        for launch, blocks in zip(launches, _blocks(func), strict=True):
            pointers = [by_name[name].ctypes.data_as(ctypes.c_void_p) for name in launch.parameters]
            getattr(self._library, f"run_{launch.symbol}")(
                blocks, launch.threads, _shared_bytes(func), int(early), int(backwards), *pointers
            )


def _planned(lowered: IRModule, target: Any) -> IRModule:
    """The module where its memory is planned, before the virtual machine's own calls."""
    passes = build_passes(target)
    names = [p.info.name for p in passes]
    with target:
        return tvm.transform.Sequential(passes[: names.index("LowerAllocTensor")])(lowered)


def source_of(lowered: IRModule, target: Any) -> str:
    """TVM's CUDA source, without its header."""
    kept: list[str] = []
    before = cuda.ptx_of

    def keep(code: str, _arch: str) -> str:
        kept.append(code)
        return "// kept"

    cuda.ptx_of = keep
    try:
        build.executable_of(lowered, target)
    finally:
        cuda.ptx_of = before
    (code,) = kept
    return code[code.index('extern "C" __global__') :]


def _launch(found: tuple[str, str, str]) -> Launch:
    threads, symbol, parameters = found
    names = (p.split()[-1].lstrip("*") for p in parameters.split(","))
    return Launch(symbol, tuple(name.removesuffix("_ptr") for name in names), int(threads))


def compiled_source(source: str, folder: Path, more: Sequence[str] = ()) -> Path:
    """A library with a function `run_NAME` for each kernel, and with `more` of C++ behind them."""
    source = re.sub(r'extern "C" __global__ void __launch_bounds__\(\d+\) \w+\([^)]*\);\n', "", source)
    runners = [_runner(*found) for found in KERNEL.findall(source)]
    source = _SHARED.sub(r"\1* \2 = (\1*)shared_memory;", source)
    source = re.sub(r'extern "C" __global__ void __launch_bounds__\(\d+\)', "static void", source)
    parts = [f'#include "{EMULATOR}"', device_code(primitives=False), source, *runners, *more]
    (folder / "kernels.cpp").write_text("\n".join(parts))
    command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv", "-w",
               "-shared", "-fPIC", "-o", "kernels.so", "kernels.cpp"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return folder / "kernels.so"


def types_of(parameters: str) -> list[str]:
    """Of a kernel's parameters, as its source lists them."""
    return [p.rsplit(" ", 1)[0].replace("__restrict__", "").strip() for p in parameters.split(",")]


def _runner(_threads: str, symbol: str, parameters: str) -> str:
    """A C function that runs the kernel's whole grid."""
    types = types_of(parameters)
    kept = "\n".join(f"static {t} {symbol}_p{i};" for i, t in enumerate(types))
    given = "".join(f", {t} p{i}" for i, t in enumerate(types))
    stored = " ".join(f"{symbol}_p{i} = p{i};" for i in range(len(types)))
    passed = ", ".join(f"{symbol}_p{i}" for i in range(len(types)))
    return (
        f"{kept}\nstatic void call_{symbol}() {{ {symbol}({passed}); }}\n"
        f'extern "C" void run_{symbol}(int blocks, int threads, long bytes, int early, int backwards'
        f"{given}) {{\n"
        f"  {stored}\n  run_grid(call_{symbol}, blocks, threads, bytes, early, backwards);\n}}"
    )


def _plain(name: Any) -> str:
    return re.sub(r"\W", "_", str(name))


def _between(func: Any) -> dict[str, Array]:
    """Tensors that one kernel of a function leaves to the next, by name."""
    nodes = _nodes(func)
    found = [b for node in nodes for b in getattr(node, "alloc_buffers", [])]
    found += [node.buffer for node in nodes if type(node).__name__ == "AllocBuffer"]
    sizes = {_plain(b.name): [int(size) for size in b.shape] for b in found if str(b.scope()) == "global"}
    return {name: _aligned(8 * int(np.prod(size))) for name, size in sizes.items()}


def _blocks(func: Any) -> list[int]:
    """Blocks of each launch, in order."""
    return [int(extent) for tag, extent in _threads(func) if tag == "blockIdx.x"]


def _threads(func: Any) -> Iterator[tuple[str, Any]]:
    for node in _nodes(func):
        if isinstance(node, tvm.tirx.AttrStmt) and node.attr_key == "thread_extent":
            yield str(node.node.thread_tag), node.value
        elif isinstance(node, tvm.tirx.For) and node.thread_binding is not None:
            yield str(node.thread_binding.thread_tag), node.extent


def _nodes(func: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(func.body, (tvm_ffi.Object, found.append))
    return found


def _shared_bytes(func: Any) -> int:
    buffers = [node.buffer for node in _nodes(func) if type(node).__name__ == "AllocBuffer"]
    shared = [b for b in buffers if str(b.scope()) == "shared.dyn"]
    return sum(int(np.prod([int(s) for s in b.shape])) * np.dtype(str(b.dtype)).itemsize for b in shared)


def _read(memory: dict[int, Array], place: Any) -> Array:
    size = int(np.prod(place.shape)) * np.dtype(place.dtype).itemsize
    return memory[place.base][place.offset :][:size].view(place.dtype).reshape(place.shape).copy()


def _aligned(size: int) -> Array:
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _bytes(array: Array) -> Array:
    """The same bytes at a multiple of 64, which tensors of TVM begin at."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    memory = _aligned(flat.size)
    memory[:] = flat
    return memory
