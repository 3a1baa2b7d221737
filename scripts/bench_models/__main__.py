"""Measure the catalogue's rows, or how time grows with the work; see scripts/bench."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench_models import scaling, speedup, table
from bench_models.catalogue import ROWS, Row
from tvm_qat.bench.compare import Options
from tvm_qat.errors import MissingDependencyError, TvmQatError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FOLDER = ROOT / "build" / "bench-models"
TFLITE = ROOT.parent / "shared" / "corpus" / "mlperf_tiny" / "pretrainedResnet_quant.tflite"
"""MLPerf Tiny's int8 ResNet-8, for LiteRT; left out where the folder of real models is missing."""


def main() -> int:
    options = _options()
    try:
        if options.missing:
            print("\n".join(_missing(options)), end="")
            return 0
        options.models.mkdir(parents=True, exist_ok=True)
        _make(_missing(options), options)
        if options.scaling:
            return _scale(options)
        return _speed_up(options) if options.speedup else _measure(options)
    except TvmQatError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return error.exit_code


def _options() -> argparse.Namespace:
    names = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {names} (default: all)")
    parser.add_argument("--against", default="onnxruntime,openvino", help="other runtimes")
    parser.add_argument("--models", type=Path, default=DEFAULT_FOLDER, help="where models are kept")
    parser.add_argument("--tflite", type=Path, help="LiteRT's file of ResNet-8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--first", action="store_true", help="run before other processes (as root)")
    parser.add_argument("--per-layer", action="store_true", help="add the layers to the JSON")
    parser.add_argument("--scaling", action="store_true", help="time against work instead of the table")
    parser.add_argument(
        "--speedup",
        type=_counts,
        metavar="N,M",
        help="numbers of threads against one thread",
    )
    parser.add_argument("--family", choices=("resnet18", "mobilenetv2"), default="resnet18")
    parser.add_argument("--widths", type=_numbers, default=list(scaling.WIDTHS), help="with --scaling")
    parser.add_argument("--sizes", type=_numbers, default=list(scaling.SIZES), help="with --scaling")
    parser.add_argument("--missing", action="store_true", help="only name the networks that have to be made")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder for JSON and plot")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in [row.name for row in ROWS]]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are {names}")
    return options


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _missing(options: argparse.Namespace) -> list[str]:
    """The networks, or with --scaling the widths of one, whose files are not all there."""
    if options.scaling:
        wanted = scaling.networks(options.family, options.widths)
        return [f"{n.width:g}" for n in wanted if not scaling.model_of(n, options.models).exists()]
    files = {row.network: row.files(options.models) for row in _rows(options)}
    return [network for network, found in files.items() if not all(file.exists() for file in found)]


def _rows(options: argparse.Namespace) -> list[Row]:
    return [row for row in ROWS if not options.rows or row.name in options.rows]


def _make(missing: Sequence[str], options: argparse.Namespace) -> None:
    """Make models in a process of their own: torch's memory and threads are gone afterwards."""
    if not missing:
        return
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("models have to be made; pip install 'tvm-qat[bench-models]'")
    what = list(missing)
    if options.scaling:
        what = ["--form=u8s8", *(f"--width={width}" for width in missing), options.family]
    command = [sys.executable, "-m", "bench_models.generate", "--out", str(options.models.resolve()), *what]
    subprocess.run(command, cwd=ROOT / "scripts", check=True)


def _measure(options: argparse.Namespace) -> int:
    rows = _rows(options)
    tflite = options.tflite or (TFLITE if TFLITE.exists() else None)
    chosen = Options(
        against=tuple(options.against.split(",")), threads=options.threads, rounds=options.rounds,
        first=options.first, per_layer=options.per_layer,
    )  # fmt: skip
    found = table.measure(rows, options.models, tflite, chosen)
    if found:
        table.show(found)
        _write(options.out, "table", table.document(found), table.plot(found))
    _mention_litert(rows, tflite)
    return 0 if len(found) == len(rows) else 1


def _mention_litert(rows: Sequence[Row], tflite: Path | None) -> None:
    if tflite is None and any(row.tflite for row in rows):
        print("LiteRT was left out: name its file of ResNet-8 with --tflite", file=sys.stderr)


def _scale(options: argparse.Namespace) -> int:
    sizes = [int(size) for size in options.sizes]
    points = scaling.measure(
        options.family, options.models, widths=options.widths, sizes=sizes, rounds=options.rounds,
        first=options.first,
    )  # fmt: skip
    scaling.show(points)
    _write(options.out, f"scaling-{options.family}", scaling.document(points), scaling.plot(points))
    return 0


def _speed_up(options: argparse.Namespace) -> int:
    documents = []
    for row in _rows(options):
        found = speedup.measure(
            row, options.models, options.speedup, rounds=options.rounds, first=options.first
        )
        speedup.show(row, found)
        documents.append(speedup.document(row, found))
    _write(options.out, "speedup", documents)
    return 0


def _write(folder: Path, name: str, document: object, plot: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten: {folder / name}.json")
    if plot is not None:
        (folder / f"{name}.svg").write_text(plot)
        print(f"written: {folder / name}.svg")


if __name__ == "__main__":
    sys.exit(main())
