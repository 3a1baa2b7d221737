"""A machine with a GPU that is none: TVM's runtime finds CUDA's driver, and kernels run in the emulator.

What is new beside `tests.support.cuda` is everything around the kernels: the package's PTX is loaded by
TVM's runtime as on a real machine, which allocates memory of the device, copies, and launches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from tests.support.cuda import EMULATOR, KERNEL, compiled_source, types_of
from tvm_qat.package import cuda

DRIVER = EMULATOR.with_name("driver.cc")
_ROOT = Path(__file__).resolve().parents[2]
EARLY = "QAT_EARLY"
"""Where it is 1, copies to shared memory are done at once and warps go backwards; else late and forwards."""

_NAMES = ("libcudart.so.13", "libcuda.so.1")


@dataclass(frozen=True)
class GpuMachine:
    """folder : the driver's libraries."""

    folder: Path

    def python(self, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Python in a process that finds the GPU."""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.folder), "PYTHONPATH": str(_ROOT)}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )


def make_machine(folder: Path) -> GpuMachine:
    """One library with the names of both; TVM asks for the version of CUDA's runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "versions").write_text(f"{_NAMES[0]} {{ global: *; }};\n")
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", str(DRIVER),
               "-o", _NAMES[0], f"-Wl,-soname,{_NAMES[0]}", "-Wl,--version-script=versions"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    (folder / _NAMES[1]).symlink_to(_NAMES[0])
    return GpuMachine(folder)


@contextmanager
def emulated_kernels(folder: Path) -> Iterator[None]:
    """While packages are compiled here, the emulator's libraries are made of their sources in `folder`; a
    package's PTX says where its library is."""
    before = cuda.ptx_of

    def make(code: str, arch: str) -> str:
        source = code[code.index('extern "C" __global__') :]
        launchers = [_launcher(*found) for found in dict.fromkeys(KERNEL.findall(source))]
        library = compiled_source(source, Path(mkdtemp(dir=folder.resolve())), launchers)
        return f"{before(code, arch)}\n// emulated by {library}\n"

    cuda.ptx_of = make
    try:
        yield
    finally:
        cuda.ptx_of = before


def _launcher(_threads: str, symbol: str, parameters: str) -> str:
    """A C function that takes arguments as the driver does."""
    given = "".join(f", *({t}*)parameters[{i}]" for i, t in enumerate(types_of(parameters)))
    early = f'getenv("{EARLY}") != nullptr && *getenv("{EARLY}") == \'1\''
    return (
        f'extern "C" void launch_{symbol}(int blocks, int threads, long bytes, void** parameters) {{\n'
        f"  bool early = {early};\n  run_{symbol}(blocks, threads, bytes, early, early{given});\n}}"
    )
