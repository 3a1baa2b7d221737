"""The command line: one module for each verb; parses, calls the library, prints.

Exit codes: 0 ok, 1 a comparison failed, 2 usage, 4 the input is at fault, 5 an optional package
is missing, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from tvm_qat.cli import bench, compile, demo, doctor, inspect, qparams, run, verify
from tvm_qat.errors import TvmQatError
from tvm_qat.version import __version__

VERBS = (compile, run, inspect, verify, qparams, bench, demo, doctor)
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code. Only errors of our own are turned into one line."""
    args = _parser().parse_args(argv)
    if args.verbose:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except TvmQatError as error:
        if args.verbose:
            traceback.print_exc()
        _release(error)
        print(f"tvm-qat: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tvm-qat: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _release(error: BaseException) -> None:
    """Let go of what the failed call still holds: TVM remarks on builders that die half-way."""
    from tvm_qat.package.quiet import quiet

    with quiet():
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = error.__context__ = error.__cause__ = None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tvm-qat", description="Compiles quantization-aware-trained models to integer code with TVM."
    )
    parser.add_argument("--version", action="version", version=f"tvm-qat {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    common.add_argument("-v", "--verbose", action="store_true", help="log what happens; show tracebacks")
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        name = verb.__name__.rsplit(".", 1)[-1]
        summary = (verb.__doc__ or "").splitlines()[0]
        child = verbs.add_parser(name, help=summary, description=summary, parents=[common])
        verb.add_arguments(child)
        child.set_defaults(run=verb.run)
    return parser
