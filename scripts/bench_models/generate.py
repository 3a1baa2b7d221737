"""Make the models: export, fold, quantize; all random numbers come from fixed seeds.

    python -m bench_models.generate [--out DIR] [--width W]... [--form F]... [NETWORK...]

writes for each network NAME_float.onnx, NAME_u8s8.onnx, NAME_s8s8.onnx and NAME_inputs.npz. Needs
torch, onnx and onnxruntime, whose quantizer places the Q/DQ pairs. Files that exist are kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.nn import functional

from bench_models import cnns, transformers
from bench_models.catalogue import FORMS, NETWORKS, Network
from bench_models.qat_form import quantize_after_activation

_CALIBRATION, _OPSET, _SEED = 4, 17, 0
_TRANSFORMERS = ("bert", "vits")

_MAKERS: dict[str, Callable[[float], nn.Module]] = {
    "resnet18": lambda width: cnns.resnet((2, 2, 2, 2), deep=False, width=width),
    "resnet50": lambda width: cnns.resnet((3, 4, 6, 3), deep=True, width=width),
    "mobilenetv2": cnns.mobilenet_v2,
    "resnet8": lambda _width: cnns.resnet8(),
    "bert": lambda _width: transformers.Bert(),
    "vits": lambda _width: transformers.VisionTransformer(),
}


def generate(network: Network, folder: Path, forms: tuple[str, ...] = FORMS) -> None:
    """Write what is missing of the network's files."""
    exported = folder / f"{network.name}_float.onnx"
    sample = folder / f"{network.name}_inputs.npz"
    if not (exported.exists() and sample.exists()):
        model = calibrated(network)
        np.savez(sample, **_named(network, 1))
        _export(model, network, exported)
    for form in forms:
        target = folder / f"{network.name}_{form}.onnx"
        if not target.exists():
            quantize(network, exported, target, form)


def calibrated(network: Network) -> nn.Module:
    """The network with batch norms that have seen data: activations of a natural size everywhere."""
    torch.manual_seed(_SEED)
    model = _MAKERS[network.family](network.width)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and norms:
            mode = "fan_out" if module.groups == 1 else "fan_in"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = None  # a plain mean over the batches
    if norms:
        model.train()
        with torch.no_grad():
            for batch in range(2):
                model(*inputs_of(network, 100 + batch, 8))
    return model.eval()


def inputs_of(network: Network, seed: int, batch: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    if network.family == "bert":
        shape = (batch, transformers.TOKENS)
        ids = torch.randint(0, transformers.VOCABULARY, shape, generator=generator)
        return ids, torch.ones(shape, dtype=torch.int64)
    return (_images(network.size, batch, generator),)


def _images(size: int, batch: int, generator: torch.Generator) -> Tensor:
    """Like photographs: mostly low frequencies, and a little noise."""
    total = 0.2 * torch.randn(batch, 3, size, size, generator=generator)
    for cells in (4, 16, 64):
        grid = max(1, size * cells // 224)
        coarse = torch.randn(batch, 3, grid, grid, generator=generator)
        total += functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return (total / total.std()).contiguous()


def _named(network: Network, seed: int) -> dict[str, np.ndarray]:
    names = ("ids", "mask") if network.family == "bert" else ("x",)
    return dict(zip(names, (value.numpy() for value in inputs_of(network, seed)), strict=True))


def _export(model: nn.Module, network: Network, to: Path) -> None:
    names = list(_named(network, 1))
    partial = to.with_suffix(".partial.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model, inputs_of(network, 1), str(partial), input_names=names, output_names=["y"],
            opset_version=_OPSET, dynamo=False, do_constant_folding=True,
        )  # fmt: skip
    partial.rename(to)


class _Samples(CalibrationDataReader):
    def __init__(self, network: Network) -> None:
        self._left: Iterator[dict[str, np.ndarray]] = (_named(network, 200 + i) for i in range(_CALIBRATION))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def quantize(network: Network, exported: Path, to: Path, form: str) -> None:
    """Of transformers only the inputs of matrix products are quantized, as PyTorch's exports have it.

    In s8s8 CNNs the activations are quantized once, behind the activation function, which is where
    training simulates it; the quantizer's other pairs are taken out again.
    """
    unsigned, transformer = form == "u8s8", network.family in _TRANSFORMERS
    products = ["MatMul", "Gemm", "Conv"]
    options = {"ActivationSymmetric": not unsigned, "WeightSymmetric": True, "AddQDQPairToWeight": False}
    if transformer:
        options["OpTypesToExcludeOutputQuantization"] = products
    prepared = exported if transformer else to.with_suffix(".prepared.onnx")
    if not transformer:
        quant_pre_process(str(exported), str(prepared))
    partial = to.with_suffix(".partial.onnx")
    quantize_static(
        str(prepared), str(partial), _Samples(network), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=products if transformer else None, extra_options=options,
    )  # fmt: skip
    if not unsigned and not transformer:
        onnx.save(quantize_after_activation(onnx.load(partial)), partial)
    partial.rename(to)
    if prepared != exported:
        prepared.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--out", type=Path, default=Path("build/bench-models"))
    parser.add_argument("--width", type=float, action="append", help="factor of the channels")
    parser.add_argument("--form", choices=FORMS, action="append", help="default: all")
    options = parser.parse_args()
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"no network {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer recommends steps that were taken
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks or NETWORKS:
        for network in _widths_of(NETWORKS[name], options.width):
            print(f"making {network.name}", file=sys.stderr, flush=True)
            generate(network, options.out, tuple(options.form or FORMS))
    return 0


def _widths_of(network: Network, widths: list[float] | None) -> list[Network]:
    if not widths:
        return [network]
    return [replace(network, name=f"{network.name}-w{width:g}", width=width) for width in widths]


if __name__ == "__main__":
    sys.exit(main())
