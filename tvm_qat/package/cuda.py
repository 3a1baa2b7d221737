"""From TVM's CUDA source to PTX inside a package, on a machine that needs no GPU and no driver.

TVM hands its source to the callback `tvm_callback_cuda_postproc` and keeps what comes back; here that is
PTX, made by nvcc. Without a driver TVM takes it for source and labels it so, and the machine that loads
it would compile it: `label_as_ptx` puts that right in the object that goes into the package.

PTX is for one architecture and later ones; the driver makes code of it when a package is first run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tvm_ffi

from tvm_qat.errors import InputError, MissingDependencyError, PackageError, located
from tvm_qat.ir import tvm
from tvm_qat.kernels.cuda.source import with_device_code
from tvm_qat.kernels.cuda.table import is_cuda

_FLAGS = ("-std=c++17", "-O3", "-w", "-fmad=false", "-ptx")
"""No contraction of products and sums, and none of --use_fast_math: the same bits as on every CPU."""

_POSTPROC, _COMPILE = "tvm_callback_cuda_postproc", "tvm_callback_cuda_compile"
_LABEL, _NEW_LABEL = b"cuda", b"ptxt"
"""Names of what the code is. Any name but the first is handed to the driver as it is; equally long."""


def find_nvcc() -> str | None:
    """The command `$NVCC`, or nvcc on PATH, or where NVIDIA's packages put it; None if it is not there."""
    usual = "/usr/local/cuda/bin/nvcc"
    command = os.environ.get("NVCC") or shutil.which("nvcc") or usual
    return command if shutil.which(shlex.split(command)[0]) else None


def check_nvcc(target: Any) -> None:
    """Raise MissingDependencyError if code for `target` needs an nvcc that is not there."""
    if not is_cuda(target):
        return
    found = find_nvcc()
    if found is None:
        remedy = "install the CUDA toolkit (Debian: apt-get install nvidia-cuda-toolkit) or set NVCC"
        raise MissingDependencyError(located("target kind cuda: nvcc was not found", remedy=remedy))
    command = shlex.split(found)
    wanted, known = _number(str(target.attrs["arch"])), _architectures(command)
    if known and wanted not in known:
        range_ = f"sm_{min(known)} to sm_{max(known)}"
        reason = f"target arch {target.attrs['arch']}: {command[0]} compiles for {range_}"
        age = "an older" if wanted < min(known) else "another"
        remedy = f"set NVCC to nvcc of {age} CUDA toolkit, or name an arch of `{command[0]} --list-gpu-arch`"
        raise MissingDependencyError(located(reason, remedy=remedy))


def _architectures(command: list[str]) -> list[int]:
    """What nvcc says that it compiles for; nothing where it is too old to be asked (before CUDA 11)."""
    try:
        done = subprocess.run([*command, "--list-gpu-arch"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingDependencyError(located(f"{command[0]}: {error.strerror or error}")) from None
    return [_number(line) for line in done.stdout.split() if line.startswith("compute_")]


def _number(arch: str) -> int:
    return int("".join(filter(str.isdigit, arch)))


@contextmanager
def as_ptx(target: Any) -> Iterator[None]:
    """While in force, TVM's CUDA source becomes PTX for the target's architecture."""
    if not is_cuda(target):
        yield
        return
    arch = str(target.attrs["arch"])
    wanted = {_POSTPROC: lambda code, _target: ptx_of(str(code), arch), _COMPILE: lambda code: code.encode()}
    before = {name: tvm.get_global_func(name, allow_missing=True) for name in wanted}
    for name, function in wanted.items():
        tvm_ffi.register_global_func(name, function, override=True)
    try:
        yield
    finally:
        for name, function in before.items():
            if function is None:
                tvm_ffi.registry.remove_global_func(name)
            else:
                tvm_ffi.register_global_func(name, function, override=True)


def ptx_of(code: str, arch: str) -> str:
    """TVM's CUDA source, with our helpers, as PTX."""
    command = shlex.split(find_nvcc() or "nvcc")
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as name:
        folder = Path(name)
        (folder / "kernels.cu").write_text(with_device_code(code), encoding="utf-8")
        command = [*command, *_FLAGS, f"-arch={arch}", "-o", "kernels.ptx", "kernels.cu"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError as error:
            raise MissingDependencyError(located(f"{command[0]}: {error.strerror or error}")) from None
        if done.returncode != 0:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            reason = f"{command[0]} cannot compile the kernels: {lines[0] if lines else 'it says nothing'}"
            raise InputError(located(reason, remedy="it must know the architecture and find a C++ compiler"))
        return (folder / "kernels.ptx").read_text(encoding="utf-8")


def label_as_ptx(file: Path) -> None:
    """Name the code in an object file with TVM's modules what it is: PTX, not source.

    A module is its kind, the length of what follows, then the name of the code, all with their lengths.
    Where TVM found a driver, it named the code right.
    """
    data = file.read_bytes()
    kind, right = _word(_LABEL), _word(b"ptx")
    kinds = [at for at in _places(data, kind) if data[at + 20 : at + 32] == kind]
    if not kinds and any(data[at + 20 :].startswith(right) for at in _places(data, kind)):
        return
    if len(kinds) != 1:
        raise PackageError(f"this version of TVM writes CUDA code in a form that is not known ({file.name})")
    at = kinds[0] + 28
    file.write_bytes(data[:at] + _NEW_LABEL + data[at + len(_LABEL) :])


def _word(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _places(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def find_device() -> Any | None:
    """The first GPU, or None where TVM finds no driver or GPU."""
    device = tvm.cuda(0)
    return device if tvm.runtime.enabled("cuda") and device.exist else None


def require_device() -> Any:
    """The first GPU; MissingDependencyError where TVM finds none."""
    device = find_device()
    if device is None:
        reason = "the package is for CUDA, and TVM finds no driver or GPU on this machine"
        remedy = "run it on a machine with an NVIDIA driver, or compile it for --target native"
        raise MissingDependencyError(located(reason, remedy=remedy))
    return device
