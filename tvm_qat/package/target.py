"""What code is made for: parsing what users write, and whether this machine can run it.

A target string is TVM's JSON form, a kind or tag (`llvm`, `raspberry-pi/4b-aarch64`), the
`llvm -mcpu=cascadelake` form that tvmc users know, or `native`: this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm_qat.errors import InputError, PackageError, UnsupportedError, located
from tvm_qat.ir import tvm
from tvm_qat.package.quiet import quiet

_USED_BY_CODE = re.compile(
    r"^(s?sse|avx|amx|fma|f16c|bmi|popcnt|lzcnt|movbe|gfni|adx|neon|dotprod|i8mm|sve|sme|fullfp16|bf16)"
)
"""CPU features whose instructions a compiler emits; the others (virtualization, hints) never show."""

_ARCH = re.compile(r"sm_(\d+)a?\Z")
_LEAST_ARCH = 61
"""The first with dp4a."""

_REMEDY = 'write e.g. llvm, native, or {"kind": "llvm", "mcpu": "cascadelake"}'


@dataclass(frozen=True)
class Platform:
    """What a machine needs in order to run a package: triple, and CPU features by LLVM's names."""

    triple: str
    features: tuple[str, ...]

    @property
    def arch(self) -> str:
        arch = self.triple.split("-")[0]
        return {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)

    @property
    def system(self) -> str:
        known = ("linux", "darwin", "windows")
        return next((name for name in known if name in self.triple), "any")


def parse_target(target: Any) -> Any:
    """A `tvm.target.Target` of kind llvm, or cuda with a host; raises InputError for anything else."""
    shown = target if isinstance(target, str) else str(target)
    try:
        with quiet():
            parsed = tvm.target.Target(_spelled_out(target))
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).split(". Target creation")[0]
        raise InputError(located(f"target {shown!r}: {reason}", remedy=_REMEDY)) from None
    if parsed.kind.name == "cuda":
        return _with_host(parsed, shown)
    if parsed.kind.name != "llvm":
        reason = f"target {shown!r}: kind {parsed.kind.name} cannot be compiled for"
        raise InputError(located(reason, remedy=_REMEDY))
    _check_cpu(parsed, shown)
    return parsed


def _with_host(parsed: Any, shown: str) -> Any:
    """A CUDA target of an architecture that has the instructions, and code for any CPU of this kind."""
    arch = _ARCH.match(str(parsed.attrs.get("arch", "")))
    if arch is None or int(arch[1]) < _LEAST_ARCH:
        reason = f"target {shown!r}: kernels for CUDA need an arch of sm_{_LEAST_ARCH} or later"
        raise UnsupportedError(located(reason, remedy='write e.g. {"kind": "cuda", "arch": "sm_90"}'))
    host = parsed.host if parsed.host is not None else tvm.target.Target("llvm")
    _check_cpu(host, shown)
    return tvm.target.Target(parsed, host)


def target_json(target: Any) -> dict[str, Any]:
    """A target as plain JSON, e.g. {"kind": "llvm", "mcpu": "cascadelake", ...}."""
    parsed: dict[str, Any] = json.loads(str(target))
    return parsed


def _spelled_out(target: Any) -> Any:
    """Aliases and the older string form as the dictionary that TVM takes."""
    if isinstance(target, Mapping):
        return dict(target)
    if not isinstance(target, str):
        return target
    text = target.strip()
    if text == "native":
        return _native()
    if text.startswith("{"):
        return json.loads(text)
    if " -" not in text:
        return text
    kind, *flags = text.split()
    return {"kind": kind, **dict(_flag(flag) for flag in flags)}


def _flag(flag: str) -> tuple[str, Any]:
    name, equals, value = flag.lstrip("-").partition("=")
    if not flag.startswith("-") or not equals:
        raise ValueError(f"{flag!r} is not of the form -name=value")
    if name == "mattr":
        return name, value.split(",")
    return name, int(value) if value.isdigit() else value


def _native() -> dict[str, Any]:
    """This machine's CPU, without those of its features that the system withholds."""
    cpu = tvm.target.codegen.llvm_get_system_cpu()
    named = platform_of(tvm.target.Target({"kind": "llvm", "mcpu": cpu}))
    withheld = [f"-{feature}" for feature in named.features if feature not in host_features()]
    return {"kind": "llvm", "mcpu": cpu, **({"mattr": withheld} if withheld else {})}


def _check_cpu(target: Any, shown: str) -> None:
    """LLVM itself only warns of a CPU or triple that it does not know, and compiles for another."""
    triple, cpu = _triple(target), str(target.attrs.get("mcpu", ""))
    if triple.split("-")[0] not in _architectures() and not _is_valid("generic", triple):
        raise InputError(located(f"target {shown!r}: mtriple {triple} is unknown to LLVM"))
    if cpu and not _is_valid(cpu, triple):
        remedy = "see `llc -mcpu=help` or write native"
        raise InputError(located(f"target {shown!r}: mcpu {cpu} is unknown for {triple}", remedy=remedy))


def _is_valid(cpu: str, triple: str) -> bool:
    with quiet():
        return bool(tvm.target.codegen.llvm_is_valid_cpu(cpu, triple))


def _architectures() -> tuple[str, ...]:
    return ("x86_64", "aarch64", "arm64")


def _triple(target: Any) -> str:
    return str(target.attrs.get("mtriple", "") or tvm.target.codegen.llvm_get_system_triple())


def platform_of(target: Any) -> Platform:
    """What code for `target` needs of a machine; of a GPU's, what its host code needs."""
    target = target if target.host is None or target.kind.name == "llvm" else target.host
    features = map(str, tvm.target.codegen.llvm_get_cpu_features(target))
    return Platform(_triple(target), tuple(sorted(filter(_USED_BY_CODE.match, features))))


def host_features() -> frozenset[str]:
    """LLVM's names of what this machine's CPU can do and the system lets it do."""
    known = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return frozenset(str(name) for name, present in known.items() if bool(int(present)))


def host_platform() -> Platform:
    return Platform(str(tvm.target.codegen.llvm_get_system_triple()), tuple(sorted(host_features())))


def check_runnable(platform: Platform, file: str) -> None:
    """Raise PackageError unless this machine can run code for `platform`."""
    host = host_platform()
    remedy = "compile it for --target native on this machine"
    if platform.arch != host.arch or platform.system not in (host.system, "any"):
        reason = f"was compiled for {platform.triple}, this machine is {host.triple}"
        raise PackageError(located(reason, file=file, remedy=remedy))
    missing = [name for name in platform.features if name not in host.features]
    if missing:
        reason = f"needs CPU features that this machine lacks: {', '.join(missing)}"
        raise PackageError(located(reason, file=file, remedy=remedy))
