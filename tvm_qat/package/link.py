"""From an executable in memory to the bytes of a package's members.

Three forms, by what the machine that compiles has at hand:

    mod.so            code for this machine (or a cross compiler is named), linked
    lib0.o devc.o     code for another architecture without a cross compiler: the machine that
    constants.o       loads the package links it
    mod.ll mod.vm     no linker at all: LLVM's IR and the VM's tables; TVM's own JIT makes code
    constants.bin     of them at loading time

The members named after constants are there where the shapes of the model are known.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, MissingDependencyError, PackageError, located
from tvm_qat.ir import tvm
from tvm_qat.kernels.constant_block import ADDRESS
from tvm_qat.package.constants import constants_module
from tvm_qat.package.container import Member
from tvm_qat.package.cuda import label_as_ptx
from tvm_qat.package.meta import Meta
from tvm_qat.package.quiet import quiet

_CONSTANTS = "constants.bin"

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


def check_cross_compiler(command: str | None, triple: str) -> None:
    """Raise InputError if this is no command, MissingDependencyError if there is no such program.

    For use before a model is compiled in vain.
    """
    if command is None:
        return
    try:
        program, *_ = shlex.split(command)
    except ValueError:
        raise InputError(f"cross compiler {command!r} is no command") from None
    if shutil.which(program) is None:
        debian = " (Debian: apt-get install gcc-aarch64-linux-gnu)" if triple.startswith("aarch64") else ""
        remedy = f"name one that links for {triple}{debian}"
        raise MissingDependencyError(located(f"cross compiler {program}: was not found", remedy=remedy))


@dataclass(frozen=True)
class Code:
    """executable : relax VMExecutable. constants : bytes that it wants linked, if any."""

    executable: Any
    constants: npt.NDArray[np.uint8] | None
    description: Meta

    def write_constants(self, folder: Path) -> Any:
        """The module that provides the constants, which reads them from a file in `folder`."""
        assert self.constants is not None
        self.constants.tofile(folder / _CONSTANTS)
        return _constants_of(folder, self.description)


def _constants_of(folder: Path, description: Meta) -> Any:
    target = tvm.target.Target(description.target)
    return constants_module(folder / _CONSTANTS, target, description.platform.system)


def members_of(code: Code, *, foreign: bool, cross_compiler: str | None) -> dict[str, bytes]:
    """The code members for a package.

    foreign : the target has another architecture or system.
    """
    linker = shlex.split(cross_compiler) if cross_compiler else None if foreign else find_linker()
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as folder:
        if linker is None and not foreign:
            return _as_ir(code, Path(folder))
        objects = _objects(code, Path(folder))
        if linker is None:
            return {name: (Path(folder) / name).read_bytes() for name in objects}
        return {"mod.so": _linked(linker, objects, Path(folder))}


def jit(code: Code) -> Any:
    """The runnable TVM module, made in memory. `code` stays as it is, to be linked later."""
    if code.constants is None:
        return code.executable.jit()
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as name:
        folder = Path(name)
        with quiet():
            code.executable.mod.write_to_file(str(folder / "mod.vm"))
            return _assembled(folder, list(code.executable.mod.imports), code.write_constants(folder))


def _assembled(folder: Path, libraries: Sequence[Any], constants: Any) -> Any:
    """An executable of `mod.vm` and these modules."""
    load = tvm.get_global_func("ffi.Module.load_from_file.relax.VMExecutable")
    executable = load(str(folder / "mod.vm"))
    for library in libraries:
        executable.import_module(library)
    if constants is not None:
        constants.get_function(ADDRESS)  # now, while the file with the constants is there
        executable.import_module(constants)
    return executable


def load_members(members: Mapping[str, Member], description: Meta, file: str) -> Any:
    """The runnable TVM module from a package's code members, which were checked before."""
    with tempfile.TemporaryDirectory(prefix="tvm_qat_") as temporary:
        folder = Path(temporary)
        for name, member in members.items():
            member.extract(folder / name)
        try:
            with quiet():
                return _load(folder, set(members), description, file)
        except (RuntimeError, OSError, ValueError) as error:
            raise PackageError(located(f"cannot be loaded: {error}", file=file)) from None


def _load(folder: Path, members: set[str], description: Meta, file: str) -> Any:
    if members == {"mod.so"}:
        return tvm.runtime.load_module(str(folder / "mod.so"))
    constants = members & {"constants.bin", "constants.o"}
    if members - constants == {"mod.ll", "mod.vm"} and not members & {"constants.o"}:
        library = tvm.runtime.load_module(str(folder / "mod.ll"))
        made = _constants_of(folder, description) if constants else None
        return _assembled(folder, [library], made)
    if members - {"constants.o"} != {"lib0.o", "devc.o"}:
        raise PackageError(located("holds no code in a form that is known", file=file))
    linker = find_linker()
    if linker is None:
        raise MissingDependencyError(_no_linker(f"{file}: holds objects that are not linked yet"))
    _linked(linker, sorted(members, reverse=True), folder)
    return tvm.runtime.load_module(str(folder / "mod.so"))


def _objects(code: Code, folder: Path) -> list[str]:
    """Write the object files that TVM wants linked; their names, in order."""
    names: list[str] = []

    def collect(_output: str, files: Sequence[str], options: Sequence[str] | None = None) -> None:
        names.extend(Path(file).name for file in files)

    with quiet():
        code.executable.export_library(str(folder / "mod.so"), fcompile=collect, workspace_dir=str(folder))
    if _holds_cuda(code):
        label_as_ptx(folder / names[-1])
    if code.constants is not None:
        names.append("constants.o")
        code.write_constants(folder).write_to_file(str(folder / names[-1]))
    return names


def _holds_cuda(code: Code) -> bool:
    return any(module.kind == "cuda" for library in code.executable.mod.imports for module in library.imports)


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


def _as_ir(code: Code, folder: Path) -> dict[str, bytes]:
    module = code.executable.mod
    libraries = [library for library in module.imports if library.kind == "llvm"]
    if len(libraries) != 1 or len(module.imports) != 1:
        raise MissingDependencyError(_no_linker("the package holds more than one library"))
    libraries[0].write_to_file(str(folder / "mod.ll"))
    with quiet():
        module.write_to_file(str(folder / "mod.vm"))
    members = {name: (folder / name).read_bytes() for name in ("mod.ll", "mod.vm")}
    return members if code.constants is None else {**members, _CONSTANTS: code.constants.tobytes()}


def _no_linker(reason: str) -> str:
    remedy = "install a C compiler (Debian: apt-get install gcc; macOS: xcode-select --install)"
    return located(f"{reason}, and no compiler was found to link it", remedy=remedy)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
