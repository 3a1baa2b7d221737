"""An imported network beside torch's own simulation of it, at its end and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchao.quantization.pt2e as pt2e
from torch import nn
from torch.ao.quantization import FakeQuantizeBase

from tests.support.layers import check_layers
from tests.support.run import imported
from tvm_qat import pipeline
from tvm_qat.ir import IRModule
from tvm_qat.report.layers import report_of
from tvm_qat.verification.evaluate import evaluate_module


def check_simulation(
    source: Any, images: torch.Tensor, expected: np.ndarray, *, step: float,
    layers: Mapping[str, np.ndarray] | Sequence[np.ndarray], **options: Any,
) -> IRModule:  # fmt: skip
    """Imported, the model computes what torch does; compiled, every layer is within a step of it.

    step : scale of the last grid (or a bound on what one step of it becomes). layers : what torch
    computed, see `check_layers`: differences are ties, and what follows from them.
    """
    mod = imported(source, **options)
    simulated = evaluate_module(mod, [images.numpy()])[0]
    np.testing.assert_allclose(simulated, expected, rtol=0, atol=step * 1e-3)
    (name,) = map(str, mod["main"].attrs["input_names"])
    rows = check_layers(mod, {name: images.numpy()}, layers)
    assert max(row.off for row in rows) <= 1e-3, rows
    found = evaluate_module(pipeline.run(mod), [images.numpy()])[0]
    off = np.abs(np.asarray(found) - expected)
    assert off.max() <= 1.001 * step, off.max() / step
    assert np.mean(off > 0.5 * step) <= 1e-3, np.mean(off > 0.5 * step)
    assert np.mean(np.asarray(found).argmax(1) == expected.argmax(1)) == 1
    return mod


FAKE_QUANTS = (FakeQuantizeBase, pt2e.FakeQuantizeBase)


def recorded(model: nn.Module, images: torch.Tensor, kinds: Any = FAKE_QUANTS) -> list[np.ndarray]:
    """What every call of a module of `kinds` returned, in order, for activations: their length is that
    of the batch."""
    seen: list[np.ndarray] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if len(output) == len(images):
            seen.append(output.detach().numpy().copy())

    hooks = [part.register_forward_hook(keep) for part in model.modules() if isinstance(part, kinds)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return seen


class _Recorder(torch.fx.Interpreter):
    """Runs a graph and keeps the result of every quantization of an activation."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.seen: dict[str, np.ndarray] = {}
        self.computed: set[torch.fx.Node] = set()

    def run_node(self, node: torch.fx.Node) -> Any:
        result = super().run_node(node)
        if node.op == "placeholder" or self.computed & set(node.all_input_nodes):
            self.computed.add(node)
            if ".quantize_per" in str(node.target) or "fake_quant" in str(node.target):
                self.seen[node.name] = result.numpy()
        return result


def recorded_calls(program: Any, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Quantized activations of an exported program, by the names of its calls."""
    recorder = _Recorder(program.module())
    with torch.no_grad():
        recorder.run(images)
    return recorder.seen


def integer_share(mod: IRModule) -> float:
    """The share of multiply-accumulates that run on integers."""
    return float(report_of(pipeline.run(mod), mod).to_json()["totals"]["int8_mac_share"])
