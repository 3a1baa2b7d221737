"""From an executable in memory to the bytes of a package's members.

Three forms, by what the machine that compiles has at hand:

    mod.so            code for this machine (or a cross compiler is named), linked
    lib0.o devc.o     code for another architecture without a cross compiler: the machine that
                      loads the package links it
    mod.ll mod.vm     no linker at all: LLVM's IR and the VM's tables; TVM's own JIT makes code
                      of them at loading time

Linking is reproducible: the linker sees fixed file names in a private folder, and neither times
nor build ids enter the result. Debug information is left out; symbols stay, for profilers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvm_qat.errors import InputError, MissingDependencyError, PackageError, located
from tvm_qat.ir import tvm
from tvm_qat.package.quiet import quiet

_LINKERS = ("cc", "gcc", "clang", "g++", "clang++")
_FLAGS = ("-shared", "-fPIC", "-Wl,-S") if sys.platform == "darwin" else (
    "-shared", "-fPIC", "-Wl,--build-id=none", "-Wl,-S"
)  # fmt: skip


def find_linker() -> list[str] | None:
    """The command that links for this machine: `$CC`, or the first compiler driver on PATH."""
    chosen = os.environ.get("CC")
    if chosen:
        return shlex.split(chosen)
    found = next(filter(None, map(shutil.which, _LINKERS)), None)
    return [found] if found else None


def members_of(executable: Any, *, foreign: bool, cross_compiler: str | None) -> dict[str, bytes]:
    """The code members for a package.

    executable : relax VMExecutable. foreign : the target has another architecture or system.
    """
    linker = shlex.split(cross_compiler) if cross_compiler else None if foreign else find_linker()
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as folder:
        if linker is None and not foreign:
            return _as_ir(executable, Path(folder))
        objects = _objects(executable, Path(folder))
        if linker is None:
            return {name: (Path(folder) / name).read_bytes() for name in objects}
        return {"mod.so": _linked(linker, objects, Path(folder))}


def load_members(members: dict[str, bytes], file: str) -> Any:
    """The runnable TVM module from a package's code members, which were checked before."""
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as name:
        folder = Path(name)
        for member, data in members.items():
            (folder / member).write_bytes(data)
        try:
            with quiet():
                return _load(folder, set(members), file)
        except (RuntimeError, OSError, ValueError) as error:
            raise PackageError(located(f"cannot be loaded: {error}", file=file)) from None


def _load(folder: Path, members: set[str], file: str) -> Any:
    if members == {"mod.so"}:
        return tvm.runtime.load_module(str(folder / "mod.so"))
    if members == {"mod.ll", "mod.vm"}:
        executable = tvm.get_global_func("ffi.Module.load_from_file.relax.VMExecutable")(
            str(folder / "mod.vm")
        )
        executable.import_module(tvm.runtime.load_module(str(folder / "mod.ll")))
        return executable
    if members != {"lib0.o", "devc.o"}:
        raise PackageError(located("holds no code in a form that is known", file=file))
    linker = find_linker()
    if linker is None:
        raise MissingDependencyError(_no_linker(f"{file}: holds objects that are not linked yet"))
    _linked(linker, sorted(members, reverse=True), folder)
    return tvm.runtime.load_module(str(folder / "mod.so"))


def _objects(executable: Any, folder: Path) -> list[str]:
    """Write the object files that TVM wants linked; their names, in order."""
    names: list[str] = []

    def collect(_output: str, files: Sequence[str], options: Sequence[str] | None = None) -> None:
        names.extend(Path(file).name for file in files)

    with quiet():
        executable.export_library(str(folder / "mod.so"), fcompile=collect, workspace_dir=str(folder))
    return names


def _linked(linker: list[str], objects: Sequence[str], folder: Path) -> bytes:
    command = [*linker, *_FLAGS, "-o", "mod.so", *objects, "-lm"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingDependencyError(_no_linker(f"{linker[0]}: {error.strerror or error}")) from None
    if done.returncode != 0:
        reason = f"{shlex.join(linker)} cannot link the code: {_last_line(done.stderr)}"
        raise InputError(located(reason, remedy="name a compiler for the target with --cross-compiler"))
    return (folder / "mod.so").read_bytes()


def _as_ir(executable: Any, folder: Path) -> dict[str, bytes]:
    libraries = [module for module in executable.mod.imports if module.kind == "llvm"]
    if len(libraries) != 1 or len(executable.mod.imports) != 1:
        raise MissingDependencyError(_no_linker("the package holds more than one library"))
    libraries[0].write_to_file(str(folder / "mod.ll"))
    with quiet():
        executable.mod.write_to_file(str(folder / "mod.vm"))
    return {name: (folder / name).read_bytes() for name in ("mod.ll", "mod.vm")}


def _no_linker(reason: str) -> str:
    remedy = "install a C compiler (Debian: apt-get install gcc; macOS: xcode-select --install)"
    return located(f"{reason}, and no compiler was found to link it", remedy=remedy)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
