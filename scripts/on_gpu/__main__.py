"""Compare a GPU's results with the CPU's bit for bit, then measure; see scripts/gpu_check."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "examples/python")]

_BUILD = ROOT / "build"


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    try:
        from on_gpu.check import Missing
        from on_gpu.parts import Unreadable
        from on_gpu.work import runtime
        from tvm_qat.errors import TvmQatError
    except ImportError as error:
        return _fail(5, f"{error}; pip install numpy 'apache-tvm-ffi<0.1.15'")
    try:
        return _both(options)
    except (Missing, runtime.Missing) as error:
        return _fail(5, str(error))
    except Unreadable as error:
        return _fail(4, str(error))
    except TvmQatError as error:
        return _fail(error.exit_code, str(error))


def _fail(code: int, reason: str) -> int:
    print(f"gpu_check: error: {' '.join(reason.split())}", file=sys.stderr)
    return code


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="MODEL", help="models of your own to add")
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--make", type=Path, metavar="DIR", help="only write packages, inputs and outputs")
    half.add_argument("--run", type=Path, metavar="DIR", help="only run what --make wrote")
    parser.add_argument(
        "--arch", help="of the GPU, e.g. sm_90 (default: of this machine's; cpu: a rehearsal)"
    )
    parser.add_argument(
        "--only", type=_names, default=[], help="parts or groups: kernels,models,gemm,resnet50..."
    )
    parser.add_argument(
        "--models", type=Path, default=_BUILD / "bench-models", help="the benchmark's networks"
    )
    parser.add_argument("--rounds", type=int, default=20, help="of the benchmark; 0: compare bits only")
    parser.add_argument("--patience", type=float, default=600, help="seconds after which a part is given up")
    parser.add_argument(
        "--out", type=Path, help="folder for JSON and table (default: DIR, or build/gpu_check)"
    )
    parser.add_argument("--missing", action="store_true", help="only say which networks have to be made")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    return text.split(",")


def _both(options: argparse.Namespace) -> int:
    folder = options.make or options.run or _BUILD / "gpu_check"
    if not options.run:
        from on_gpu import make, models, work

        arch = options.arch or work.arch_of(work.runtime.start("cuda"))
        if options.missing:
            return _name_missing(models.missing(options.only, options.models), options.models)
        make.make(folder, arch, options.only, options.files, options.models, _say)
    return 0 if options.make else _run(folder, options)


def _name_missing(networks: list[str], models: Path) -> int:
    """The arguments of bench_models.generate, one a line; nothing if all are there."""
    if networks:
        print(f"--out={models.resolve()}", *networks, sep="\n")
    return 0


def _run(folder: Path, options: argparse.Namespace) -> int:
    from on_gpu import check, table
    from on_gpu.parts import Unreadable, chosen, read

    description = read(folder)
    parts = chosen(description.parts, options.only)
    if not parts:
        raise Unreadable(f"{folder} holds no {','.join(options.only)}")
    name, arch = check.device_of(folder)
    if arch is not None and _number(arch) < _number(description.arch):
        raise Unreadable(
            f"{folder} is for {description.arch}, this GPU is {arch}; make it with --arch {arch}"
        )
    machine = name or f"{platform.machine()} CPU, no GPU"
    _say(f"{machine}, code for {description.arch}")
    outcomes = check.check(folder, description, parts, options.rounds, options.patience, _say)
    about = {"machine": machine, "arch": description.arch, "versions": _versions(description)}
    _write(options.out or folder, table.document(outcomes, about))
    return 1 if any(outcome.faults for outcome in outcomes) else 0


def _write(folder: Path, found: dict[str, Any]) -> None:
    from on_gpu import table

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "result.md").write_text(table.markdown(found), encoding="utf-8")
    _say(f"\n{table.markdown(found)}\nwritten: {folder / 'result.json'} and result.md")


def _versions(description: Any) -> dict[str, str]:
    found = {"TVM": description.versions["tvm"]}
    try:
        found["torch"] = metadata.version("torch")
    except metadata.PackageNotFoundError:
        found["torch"] = ""
    return found


def _number(arch: str) -> int:
    return int("".join(letter for letter in arch if letter.isdigit()))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
