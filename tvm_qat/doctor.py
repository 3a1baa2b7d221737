"""What this machine and this installation can do, found out by trying it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np

from tvm_qat import compiler
from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var, const, tvm
from tvm_qat.package.cuda import find_device, find_nvcc
from tvm_qat.package.link import find_linker
from tvm_qat.package.target import host_features, host_platform
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams
from tvm_qat.verification.evaluate import evaluate_module

State = Literal["ok", "missing", "wrong"]

_NEEDED = ("apache-tvm", "apache-tvm-ffi", "onnx", "numpy", "rich")
_OPTIONAL = {
    "onnxruntime": "latency beside ours in `demo`",
    "torch": "training the demo models anew",
}
_INT8_FEATURES = {
    "x86_64": ("avx2", "avxvnni", "avx512bw", "avx512vnni", "amx-int8"),
    "aarch64": ("neon", "dotprod", "i8mm", "sve", "sve2"),
}


@dataclass(frozen=True)
class Finding:
    """state : `missing` is worth knowing, `wrong` keeps the product from working."""

    name: str
    value: str
    state: State = "ok"
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine() -> Iterator[Finding]:
    """Everything, from versions to a model that is compiled and run.

    Nothing is compiled with a version that is known to crash: the findings would go down with it.
    """
    yield Finding("python", platform.python_version())
    needed = [_needed(name) for name in _NEEDED]
    yield from needed
    yield Finding("LLVM", str(tvm.target.codegen.llvm_version_major()))
    yield from _machine()
    yield _linker()
    yield _nvcc()
    yield _gpu()
    yield from (_optional(name, use) for name, use in _OPTIONAL.items())
    if all(finding.state == "ok" for finding in needed):
        yield _self_test()


def _needed(name: str) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", "wrong", f"pip install {name}")
    if name == "apache-tvm-ffi" and _numbers(version) >= (0, 1, 15):
        remedy = (
            "pip install 'apache-tvm-ffi>=0.1.14.post0,<0.1.15' (later ones crash when a module is saved)"
        )
        return Finding(name, version, "wrong", remedy)
    if name == "apache-tvm" and _numbers(version)[:2] != (0, 27):
        return Finding(name, version, "wrong", "pip install 'apache-tvm>=0.27,<0.28'")
    return Finding(name, version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _machine() -> Iterator[Finding]:
    host, features = host_platform(), host_features()
    yield Finding("processor", f"{tvm.target.codegen.llvm_get_system_cpu()} ({host.triple})")
    wanted = _INT8_FEATURES.get(host.arch, ())
    has = [name for name in wanted if name in features]
    yield Finding("int8 instructions", ", ".join(has) or "none known", "ok" if has else "missing")
    yield Finding("threads", f"{tvm.runtime.num_threads()} of {os.cpu_count()} logical cores")


def _linker() -> Finding:
    linker = find_linker()
    if linker is not None:
        return Finding("linker", " ".join(linker))
    remedy = "packages hold LLVM IR and are compiled when they are loaded; a C compiler makes loading faster"
    return Finding("linker", "none", "missing", remedy)


def _nvcc() -> Finding:
    command = find_nvcc()
    if command is not None:
        return Finding("nvcc", command)
    remedy = "only compiling for an NVIDIA GPU needs it: install the CUDA toolkit or set NVCC"
    return Finding("nvcc", "none", "missing", remedy)


def _gpu() -> Finding:
    device = find_device()
    if device is not None:
        return Finding("NVIDIA GPU", f"{device.device_name}, compute capability {device.compute_version}")
    remedy = "only running packages for one needs it: a driver, and CUDA's libcudart for TVM's runtime"
    return Finding("NVIDIA GPU", "none, or no driver", "missing", remedy)


def _optional(name: str, use: str) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", "missing", f"pip install {name}  (for {use})")


def _self_test() -> Finding:
    """Compile a small quantized convolution, run it, and compare every value with NumPy's."""
    data = np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)
    mod = _small_model()
    expected = evaluate_module(mod, [data])[0]
    result = next(iter(compiler.compile(mod, "native").run([data]).values()))
    if np.array_equal(expected, result):
        return Finding("self-test", f"{expected.size} of {expected.size} values equal the reference")
    equal = int(np.count_nonzero(expected == result))
    remedy = "report this with the output of tvm-qat doctor --json"
    return Finding("self-test", f"{equal} of {expected.size} values equal the reference", "wrong", remedy)


def _small_model() -> IRModule:
    grid, accumulator = (
        QParams(np.array(0.05), np.array(3), "uint8"),
        QParams(np.array(0.0005), dtype="int32"),
    )
    weight = np.random.default_rng(1).integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    builder = BlockBuilder()
    x = Var("x", TensorType((1, 3, 6, 6), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            data = builder.emit(qnn.quantize(x, grid))
            sums = builder.emit(
                qnn.conv(data, const(weight), 3, strides=[1, 1], padding=[1, 1, 1, 1], dilation=[1, 1])
            )
            result = builder.emit(qnn.requantize(sums, accumulator, grid))
            output: Any = builder.emit_output(qnn.dequantize(result, grid))
        builder.emit_func_output(output)
    return builder.get()
