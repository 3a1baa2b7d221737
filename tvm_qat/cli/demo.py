"""Show the whole flow on a small trained model that ships with tvm_qat."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tvm_qat.cli import console
from tvm_qat.cli.inspect import print_report

if TYPE_CHECKING:
    from tvm_qat.demo import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="T", default="native", help="what to compile for")
    parser.add_argument(
        "--model", choices=("digits_cnn", "digits_mlp"), default="digits_cnn", help="which network"
    )


def run(args: argparse.Namespace) -> int:
    from tvm_qat import demo

    with console.progress() as show:
        outcome = demo.run(args.model, args.target, show)
    if args.json:
        console.print_json(outcome.to_json())
    else:
        _print(outcome)
    return 0 if outcome.passed else 1


def _print(outcome: Outcome) -> None:
    print(f"{outcome.model}: a network trained with quantization awareness on handwritten digits\n")
    print_report(outcome.report)
    print(f"\nAccuracy on {outcome.images} digits that training never saw")
    print(f"  float model              {outcome.float_accuracy:6.2f} %")
    print(f"  quantization simulated   {outcome.simulated_accuracy:6.2f} %")
    print(f"  compiled integer code    {outcome.compiled_accuracy:6.2f} %")
    print(
        f"\nCompiled code against the simulation: at most {outcome.largest_steps:g}"
        f" {'step' if outcome.largest_steps == 1 else 'steps'} apart,"
        f" {outcome.differing:.2%} of the outputs differ"
    )
    print("\nLatency of one image")
    print(f"  tvm_qat                  {1e6 * outcome.seconds:8.1f} us")
    if outcome.onnxruntime_seconds is not None:
        ratio = outcome.onnxruntime_seconds / outcome.seconds
        print(f"  onnxruntime              {1e6 * outcome.onnxruntime_seconds:8.1f} us  ({ratio:.2f} x ours)")
    else:
        print("  (pip install onnxruntime to see its latency here)")
    sizes = (outcome.model_bytes, outcome.package_bytes)
    print("\nSize: model {}, package {}".format(*map(console.in_bytes, sizes)))
    print("\nPASSED" if outcome.passed else "\nFAILED: more than one step from the simulation")
