"""Write the quantization parameters of a model as JSON (AIMET's encodings, version 2.0.0)."""

from __future__ import annotations

import argparse
import json

import tvm_qat as tq
from tvm_qat.cli import console, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model file")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write; by default stdout")
    parser.add_argument(
        "--float-model", metavar="ONNX",
        help="write the float model under a Q/DQ ONNX model too: with the parameters it is the same model",
    )  # fmt: skip
    options.add_import_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from tvm_qat.package.files import write_atomically

    options.check_outputs(args, args.output, args.float_model)
    document = tq.export_qparams(args.model, **options.import_options(args))
    if args.float_model:
        write_atomically(args.float_model, tq.export_float_model(args.model).SerializeToString())
    if args.output:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(args.output, f"{text}\n".encode())
    if args.json or not args.output:
        console.print_json(document)
    else:
        print(f"{args.output}: the parameters of {len(document['encodings'])} tensors")
    return 0
