"""PyTorch beside us, where it is installed: fp16 models, and int8 products by cuBLASLt.

`torch._int_mm` is cuBLASLt's int8 product on a GPU. Its second operand lies by columns, as cuBLASLt
wants it for tensor cores, and it refuses fewer than 17 rows. Models are those of scripts/bench_models
with random weights of their own: the time does not depend on them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

from on_gpu.parts import Part
from on_gpu.timing import Contender

_MODES = ("reduce-overhead", "default")
"""Of torch.compile, best first: with CUDA graphs, and without."""

TORCH_FAULTS = (RuntimeError, OSError, ImportError)
"""What torch raises where it cannot compile or has no such product: Dynamo's and Inductor's are
RuntimeErrors; a compiler that cannot be started, and a Triton that is not installed."""


def of(part: Part, device: str) -> tuple[list[Contender], str]:
    """What is measured beside a part, and why there is nothing, if there is."""
    if part.peer is None:
        return [], ""
    if importlib.util.find_spec("torch") is None:
        return [], "torch is not installed"
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "8")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return [], "torch sees no GPU"
    make = _gemm if part.group == "gemm" else lambda *batch: _model(part.group, *batch)
    return make(*part.peer, device)


def _gemm(rows: int, columns: int, depth: int, device: str) -> tuple[list[Contender], str]:
    import torch

    x, y = (torch.randint(-128, 128, shape, dtype=torch.int8, device=device) for shape in
            ((rows, depth), (columns, depth)))  # fmt: skip
    call = lambda: torch._int_mm(x, y.t())  # noqa: E731
    try:
        call()
    except TORCH_FAULTS as error:
        return [], f"torch._int_mm: {_first_line(error)}"
    return [_contender("torch._int_mm", call, device, "")], ""


def _model(network: str, batch: int, device: str) -> tuple[list[Contender], str]:
    import torch

    torch.manual_seed(0)
    model, inputs = _made(network, batch)
    half = torch.float16
    model = model.eval().to(device, half)
    inputs = [x.to(device, half) if x.is_floating_point() else x.to(device) for x in inputs]
    if inputs[0].ndim == 4:
        model = model.to(memory_format=torch.channels_last)
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
    faults = []
    with torch.inference_mode():
        for mode in _MODES if device == "cuda" else ():
            run = _without_gradients(torch.compile(model, mode=mode, dynamic=False), inputs)
            try:
                run()
                return [_contender("PyTorch fp16", run, device, f"torch.compile, mode {mode}")], ""
            except TORCH_FAULTS as error:
                faults.append(f"mode {mode}: {_first_line(error)}")
                torch._dynamo.reset()
    note = "; ".join(["not compiled", *faults])
    return [_contender("PyTorch fp16", _without_gradients(model, inputs), device, note)], ""


def _made(network: str, batch: int) -> tuple[Any, Sequence[Any]]:
    """The network in float32 on the CPU, and inputs."""
    import torch
    from bench_models import cnns, transformers

    if network == "bert":
        shape = (batch, transformers.TOKENS)
        ids = torch.randint(0, transformers.VOCABULARY, shape)
        return transformers.Bert(attention=transformers.FusedAttention), [
            ids,
            torch.ones(shape, dtype=torch.int64),
        ]
    make: dict[str, Callable[[], Any]] = {
        "resnet50": lambda: cnns.resnet((3, 4, 6, 3), deep=True),
        "mobilenetv2": cnns.mobilenet_v2,
    }
    return make[network](), [torch.randn(batch, 3, 224, 224)]


def _without_gradients(model: Any, inputs: Sequence[Any]) -> Callable[[], Any]:
    import torch

    def run() -> Any:
        with torch.inference_mode():
            return model(*inputs)

    return run


def _contender(name: str, start: Callable[[], Any], device: str, note: str) -> Contender:
    import torch

    return Contender(name, start, torch.cuda.synchronize if device == "cuda" else lambda: None, note)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
