"""A compiled model: run it, time it, save it."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, PackageError, UnsupportedError, located
from tvm_qat.ir import relax, tvm
from tvm_qat.kernels.constant_block import ADDRESS
from tvm_qat.kernels.cuda.symbols import TOO_MANY
from tvm_qat.kernels.one_call import RUN
from tvm_qat.package import container, details, link, meta
from tvm_qat.package.cuda import require_device
from tvm_qat.package.details import Details
from tvm_qat.package.files import check_writable, write_atomically
from tvm_qat.package.meta import Meta, Schedule, TensorInfo
from tvm_qat.package.profile import KernelTime, profile, profile_steps, results_of, with_macs
from tvm_qat.package.quiet import quiet
from tvm_qat.package.target import Platform, check_runnable, host_platform
from tvm_qat.package.times import Times

Array = npt.NDArray[Any]
Inputs = Mapping[str, Any] | Sequence[Any]

_NAME = re.compile(r"[^\W\d]\w*\Z")


class Package:
    """What `compile` and `load` return.

    inputs, outputs : TensorInfo each, in the model's order and by the model's names.
    layers, removed, totals : what `inspect` shows: which node runs on integers, and why the others do not.
    """

    def __init__(
        self, description: Meta, shown: Details | container.Member, *, executable: Any = None,
        constants: npt.NDArray[np.uint8] | None = None,
        stored: Mapping[str, container.Member] | None = None,
        file: str = "package", cross_compiler: str | None = None, dumps: Mapping[str, str] | None = None,
        results: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        self.meta = description
        self.dumps = dict(dumps or {})
        """Texts asked for when compiling, by name, e.g. tir or asm. Not saved."""
        self.results = tuple(results)
        """Where the result of each step of the schedule lies (kernels.one_call). Not saved."""
        self._code = link.Code(executable, constants, description)
        self._shown = shown
        self._stored = dict(stored or {})
        self._members: dict[str, bytes] | None = None
        self._file = file
        self._cross_compiler = cross_compiler

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self.meta.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self.meta.outputs

    @property
    def layers(self) -> list[dict[str, Any]]:
        return self._details.layers

    @property
    def removed(self) -> list[dict[str, Any]]:
        return self._details.removed

    @cached_property
    def _details(self) -> Details:
        if isinstance(self._shown, Details):
            return self._shown
        return details.from_bytes(self._shown.read(), self._file)

    @property
    def totals(self) -> dict[str, Any]:
        return self.meta.totals

    def members(self) -> dict[str, bytes]:
        """The files of machine code that a saved package holds, by name; `mod.so` where it is linked."""
        if self._code.executable is None:
            return {name: member.read() for name, member in self._stored.items()}
        if self._members is None:
            here = host_platform()
            foreign = (self.meta.platform.arch, self.meta.platform.system) != (here.arch, here.system)
            self._members = link.members_of(self._code, foreign=foreign, cross_compiler=self._cross_compiler)
        return dict(self._members)

    def to_bytes(self) -> bytes:
        """The package as a file's content; equal for equal model, target and versions."""
        members = {details.MEMBER: self._details.to_bytes(), **self.members()}
        description = meta.to_bytes(self.meta, members)
        return container.to_tar({container.META: description, **members})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the package; `path` is whole or untouched."""
        check_writable(path)
        write_atomically(path, self.to_bytes())

    def run(self, inputs: Inputs) -> dict[str, Array]:
        """The outputs by the model's names.

        inputs : arrays by name, or in order. Names, shapes and dtypes must be the model's own;
            raises InputError where they are not. Those with an `initial` may be left out.
        """
        tensors = self._tensors(inputs)
        try:
            return self._named(self._main(*tensors))
        except ValueError as error:
            if TOO_MANY not in str(error):
                raise
            raise InputError(located(TOO_MANY, file=self._file, remedy="run fewer samples at once")) from None

    def benchmark(
        self, inputs: Inputs | None = None, *, repeat: int = 10, number: int = 1, warm_up: int = 1
    ) -> Times:
        """Seconds per inference: `repeat` figures, each the mean of `number` runs in a row.

        inputs : as for `run`; random ones if left out. Inputs are converted before the clock starts.
        Returns a list with a `median`. Where the time goes, `profile` says.
        """
        tensors = self._tensors(self.random_inputs() if inputs is None else inputs)
        for _ in range(warm_up):
            self._main(*tensors)
        wait = self._device.sync if self._is_for_cuda else None
        return Times(_seconds(lambda: self._main(*tensors), number, wait) for _ in range(repeat))

    def profile(self, inputs: Inputs | None = None, *, repeat: int = 10) -> list[KernelTime]:
        """Where the time of one inference goes: its kernels in order, by their source nodes' names.

        Each row has the median of its seconds, and GOPS if it multiplies. Not for a GPU, whose kernels
        run on while the next are called: raises UnsupportedError.
        """
        if self._is_for_cuda:
            reason = "kernels on a GPU cannot be timed one by one here"
            raise UnsupportedError(located(reason, file=self._file, remedy="use nsys or ncu"))
        tensors = self._tensors(self.random_inputs() if inputs is None else inputs)
        sources = {**self.meta.kernels, **self.meta.tvm_kernels}
        if self.meta.schedule is not None:
            steps = self.meta.schedule.steps
            rows = profile_steps(self._steps(tensors, self.meta.schedule), steps, sources, repeat)
        else:
            machine = self._new_machine()
            machine["main"](*tensors)
            rows = profile(machine, lambda: machine["main"](*tensors), sources, repeat)
        return with_macs(rows, self.layers)

    def trace(self, inputs: Inputs) -> Iterator[tuple[str, Array]]:
        """(kernel, its result) step by step; a view that is valid until the next step.

        Of a package with a schedule only if it was compiled in this process.
        """
        schedule = self.meta.schedule
        tensors = self._tensors(inputs)
        if schedule is None:
            machine = self._new_machine()
            yield from results_of(machine, lambda: machine["main"](*tensors), self.meta.kernels)
            return
        if len(self.results) != len(schedule.steps):
            reason = "was loaded from a file: it does not say where the results of its steps lie"
            raise PackageError(located(reason, file=self._file, remedy="compile the model again"))
        tensors += [tvm.runtime.empty(shape, dtype) for shape, dtype in schedule.buffers]
        run = self._runner(tensors)
        for number, (base, offset, shape, dtype, _) in enumerate(self.results):
            run(number, number + 1)
            data = np.from_dlpack(tensors[base]).reshape(-1).view(np.uint8)
            count = math.prod(shape) * np.dtype(dtype).itemsize
            yield schedule.steps[number], data[offset : offset + count].view(dtype).reshape(shape)

    def _steps(self, tensors: Sequence[Any], schedule: Schedule) -> Callable[[int, int], object]:
        """Runs the kernels from the first number to before the second; all of them have run once."""
        buffers = [tvm.runtime.empty(shape, dtype) for shape, dtype in schedule.buffers]
        run = self._runner([*tensors, *buffers])
        run(0, len(schedule.steps))
        return run

    def _runner(self, tensors: Sequence[Any]) -> Callable[[int, int], object]:
        run, address = (self._module.get_function(name, query_imports=True) for name in (RUN, ADDRESS))
        arguments = [*tensors, address()]
        return lambda first, last: run(*arguments, first, last)

    def random_inputs(self, seed: int = 0, unknown: int = 1) -> dict[str, Array]:
        """Inputs over the dtype's range, normal for floats; dimensions not known become `unknown`."""
        rng = np.random.default_rng(seed)
        return {info.name: _random(rng, info, unknown) for info in self.inputs}

    @cached_property
    def _module(self) -> Any:
        check_runnable(self.meta.platform, self._file)
        if self._code.executable is not None:
            return link.jit(self._code)
        return link.load_members(self._stored, self.meta, self._file)

    @cached_property
    def _device(self) -> Any:
        """Where kernels run and their inputs lie; MissingDependencyError where there is no such GPU."""
        return require_device() if self._is_for_cuda else tvm.cpu()

    @property
    def _is_for_cuda(self) -> bool:
        return bool(self.meta.target.get("kind") == "cuda")

    def _tensors(self, inputs: Inputs) -> list[Any]:
        arrays, device = self._checked(inputs), self._device
        return [tvm.runtime.tensor(array, device) for array in arrays]

    @cached_property
    def _machine(self) -> Any:
        return self._new_machine()

    def _new_machine(self) -> Any:
        with quiet():
            return relax.VirtualMachine(self._module, self._device)

    @cached_property
    def _main(self) -> Callable[..., Any]:
        function: Callable[..., Any] = self._machine["main"]
        return function

    def _checked(self, inputs: Inputs) -> list[Array]:
        named = _by_name(inputs, self.inputs)
        known: dict[str, int] = {}
        return [_matching(named[info.name], info, known) for info in self.inputs]

    def _named(self, result: Any) -> dict[str, Array]:
        parts = [result] if hasattr(result, "numpy") else list(result)
        return {info.name: part.numpy() for info, part in zip(self.outputs, parts, strict=True)}


def load(path: str | os.PathLike[str]) -> Package:
    """The package at `path`, which this machine can run.

    Form, checksums, schema, version and target are checked before anything of it is used; raises
    PackageError if one of them is wrong.
    """
    package = read(path)
    _check_version(package.meta, str(path))
    check_runnable(package.meta.platform, str(path))
    return package


def read(path: str | os.PathLike[str]) -> Package:
    """The package at `path`, for this machine or another: to look at, not to run."""
    members = container.from_file(path)
    raw = members.pop(container.META).read()
    description = meta.from_bytes(raw, {name: m.sha256 for name, m in members.items()}, str(path))
    shown = members.pop(details.MEMBER, None)
    if shown is None:
        raise PackageError(located(f"holds no {details.MEMBER}", file=str(path)))
    return Package(description, shown, stored=members, file=str(path))


def _check_version(description: Meta, file: str) -> None:
    made, here = description.versions.get("tvm", "unknown"), str(tvm.__version__)
    if made.split(".")[:2] != here.split(".")[:2]:
        remedy = "compile the model again"
        raise PackageError(
            located(f"was made with apache-tvm {made}, this is {here}", file=file, remedy=remedy)
        )


def _by_name(inputs: Inputs, infos: Sequence[TensorInfo]) -> dict[str, Any]:
    names = [info.name for info in infos]
    if not isinstance(inputs, Mapping):
        arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        begun = [info.name for info in infos if info.initial is None]
        names = begun if len(arrays) == len(begun) else names
        if len(arrays) != len(names):
            raise InputError(f"{len(arrays)} inputs given, the model has {len(names)}: {', '.join(names)}")
        return _begun(infos) | dict(zip(names, arrays, strict=True))
    inputs = _begun(infos) | dict(inputs)
    missing = [name for name in names if name not in inputs]
    unknown = [str(name) for name in inputs if name not in names]
    if missing or unknown:
        reasons = [f"no data for input {name!r}" for name in missing]
        reasons += [f"the model has no input {name!r}" for name in unknown]
        raise InputError(f"{'; '.join(reasons)}; its inputs are {', '.join(names)}")
    return dict(inputs)


def _begun(infos: Sequence[TensorInfo]) -> dict[str, Any]:
    """The inputs that hold variables, as they are before the first run."""
    return {
        info.name: np.full([size for size in info.shape if isinstance(size, int)], info.initial, info.dtype)
        for info in infos
        if info.initial is not None
    }


def _matching(value: Any, info: TensorInfo, known: dict[str, int]) -> Array:
    """`value` as an array that fits `info`; `known` gathers the sizes of named dimensions."""
    array = value if isinstance(value, np.ndarray) else _from_plain(value, info)
    wanted = f"[{', '.join(map(str, info.shape))}] {info.dtype}"
    given = f"[{', '.join(map(str, array.shape))}] {array.dtype}"
    remedy = f"it takes {wanted}"
    if str(array.dtype) != info.dtype or array.ndim != len(info.shape):
        raise InputError(located(f"input {info.name!r}: got {given}", remedy=remedy))
    for size, expected in zip(array.shape, info.shape, strict=True):
        if isinstance(expected, str) and _NAME.match(expected):
            expected = known.setdefault(expected, size)
        if isinstance(expected, int) and size != expected:
            raise InputError(located(f"input {info.name!r}: got {given}", remedy=remedy))
    return np.ascontiguousarray(array).reshape(array.shape)


def _from_plain(value: Any, info: TensorInfo) -> Array:
    try:
        return np.asarray(value, info.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(located(f"input {info.name!r} is no array of {info.dtype}: {error}")) from None


def _random(rng: np.random.Generator, info: TensorInfo, unknown: int) -> Array:
    shape = tuple(size if isinstance(size, int) else unknown for size in info.shape)
    dtype = np.dtype(info.dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        high = min(int(limits.max), 1 << 16)
        return rng.integers(max(int(limits.min), -high), high, shape, endpoint=True).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _seconds(call: Callable[[], Any], number: int, wait: Callable[[], Any] | None) -> float:
    """wait : for the last call to be done, where calls only begin something."""
    start = time.perf_counter()
    for _ in range(number):
        call()
    if wait is not None:
        wait()
    return (time.perf_counter() - start) / number


__all__ = ["Package", "Platform", "load"]
