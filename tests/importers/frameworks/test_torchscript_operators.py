"""Each operator of `quantized::`, and what the walk over a graph resolves, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.importers.frameworks.torchscript_nets import quiet
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model
from tvm_qat.verification.evaluate import evaluate_module

SHAPE = (2, 4, 6, 6)
ops = torch.ops.quantized


def q(x, scale=0.05, zero_point=100, dtype=torch.quint8):
    return torch.quantize_per_tensor(x, scale, zero_point, dtype)


def weight(*shape, per_channel=True, axis=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    if not per_channel:
        return torch.quantize_per_tensor(values, 0.02, 0, torch.qint8)
    scales = torch.linspace(0.01, 0.03, shape[axis])
    return torch.quantize_per_channel(values, scales, torch.zeros(shape[axis]).long(), axis, torch.qint8)


def packed(kind, w, bias=True):
    b = torch.linspace(-1, 1, w.shape[0]) if bias else None
    if kind == "linear":
        return ops.linear_prepack(w, b)
    if kind == "conv1d":
        return ops.conv1d_prepack(w, b, [2], [1], [1], 1)
    if kind == "conv3d":
        return ops.conv3d_prepack(w, b, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1)
    if kind == "transposed":
        return ops.conv_transpose2d_prepack(w, None, [2, 2], [1, 1], [1, 1], [1, 1], 1)
    return ops.conv2d_prepack(w, b, [1, 2], [1, 0], [1, 1], 2 if kind == "grouped" else 1)


class Net(nn.Module):
    """A function of a tensor, and of a packed weight where it has one, as a module to be traced."""

    def __init__(self, function, packed_weight=None):
        super().__init__()
        self.function = function
        if packed_weight is not None:
            self.packed_weight = packed_weight

    def forward(self, x):
        return self.function(x, self.packed_weight) if hasattr(self, "packed_weight") else self.function(x)


CASES = {
    "conv1d": (
        lambda x, w: ops.conv1d(q(x[:, :, 0]), w, 0.1, 120),
        lambda: packed("conv1d", weight(6, 4, 3)),
    ),
    "conv2d": (lambda x, w: ops.conv2d(q(x), w, 0.1, 120), lambda: packed("conv2d", weight(6, 4, 3, 3))),
    "conv2d, grouped": (
        lambda x, w: ops.conv2d(q(x), w, 0.1, 120),
        lambda: packed("grouped", weight(6, 2, 3, 3)),
    ),
    "conv2d, per tensor": (
        lambda x, w: ops.conv2d(q(x), w, 0.1, 120),
        lambda: packed("conv2d", weight(6, 4, 3, 3, per_channel=False), bias=False),
    ),
    "conv2d_relu": (
        lambda x, w: ops.conv2d_relu(q(x), w, 0.1, 3),
        lambda: packed("conv2d", weight(6, 4, 3, 3)),
    ),
    "conv3d": (
        lambda x, w: ops.conv3d(q(x[:, :, None]), w, 0.1, 120),
        lambda: packed("conv3d", weight(3, 4, 3, 3, 3)),
    ),
    "linear": (lambda x, w: ops.linear(q(x), w, 0.1, 120), lambda: packed("linear", weight(5, 6))),
    "linear_relu": (lambda x, w: ops.linear_relu(q(x), w, 0.1, 20), lambda: packed("linear", weight(5, 6))),
    "add": lambda x: ops.add(q(x), q(x, 0.03, 90), 0.08, 110),
    "add_relu": lambda x: ops.add_relu(q(x), q(x, 0.03, 90), 0.08, 0),
    "mul": lambda x: ops.mul(q(x), q(x, 0.03, 90), 0.1, 30),
    "mul_relu": lambda x: ops.mul_relu(q(x), q(x, 0.03, 90), 0.1, 30),
    "cat": lambda x: ops.cat([q(x), q(x, 0.03, 90)], 1, 0.05, 100),
    "cat of torch": lambda x: torch.cat([q(x), q(x, 0.03, 90)], 1),
    "mul_scalar": lambda x: ops.mul_scalar(q(x), 1.7),
    "add_scalar": lambda x: ops.add_scalar(q(x), 0.25),
    "batch_norm2d": lambda x: ops.batch_norm2d(
        q(x),
        torch.ones(4),
        torch.zeros(4),
        torch.zeros(4),
        torch.tensor([1.0, 1.3, 1.7, 2.0]),
        1e-5,
        0.04,
        100,
    ),
    "hardswish": lambda x: ops.hardswish(q(x), 0.0437, 20),
    "leaky_relu": lambda x: ops.leaky_relu(q(x), 0.13, False, 0.0437, 50),
    "elu": lambda x: ops.elu(q(x), 0.0437, 50),
    "sigmoid": lambda x: torch.sigmoid(q(x)),
    "sigmoid of int8": lambda x: torch.sigmoid(q(x, 0.05, -10, torch.qint8)),
    "tanh": lambda x: torch.tanh(q(x)),
    "relu": lambda x: torch.relu(q(x)),
    "relu6": lambda x: ops.relu6(q(x, 0.05, 20)),
    "hardtanh": lambda x: nn.functional.hardtanh(q(x), -0.51, 1.01),
    "max_pool2d": lambda x: nn.functional.max_pool2d(q(x), 2, 1),
    "avg_pool2d": lambda x: nn.functional.avg_pool2d(q(x), 3, 1),
    "adaptive_avg_pool2d": lambda x: nn.functional.adaptive_avg_pool2d(q(x), 2),
    "mean": lambda x: q(x).mean([2, 3]),
    "movement": lambda x: torch.flatten(q(x).permute(0, 2, 3, 1)[:, 1:].reshape(2, -1, 8), 1),
    "chunk": lambda x: torch.chunk(q(x), 2, 1)[1],
    "nearest": lambda x: nn.functional.interpolate(q(x), scale_factor=2.0),
    "quantize_per_channel": lambda x: torch.quantize_per_channel(
        x, torch.tensor([0.02, 0.03, 0.04, 0.05]), torch.tensor([3, 128, 60, 200]), 1, torch.quint8
    ),
    "transposed": (
        lambda x, w: ops.conv_transpose2d(q(x), w, 0.1, 120),
        lambda: packed("transposed", weight(4, 3, 3, 3, per_channel=False)),
    ),
}


def sample(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_quantized_operator(name):
    case = CASES[name]
    with quiet():
        net = Net(case[0], case[1]()) if isinstance(case, tuple) else Net(case)
        traced = torch.jit.trace(net, torch.from_numpy(sample()), check_trace=False)
        want = net(torch.from_numpy(sample(seed=1)))
    mod = import_model(traced)
    (have,) = evaluate_module(mod, {"x": sample(seed=1)})
    scales = want.q_scale() if want.qscheme() == torch.per_tensor_affine else 0.02
    steps = np.rint(np.abs(have - want.dequantize().numpy()) / scales)
    assert have.shape == tuple(want.shape)
    assert steps.max() <= 1 and np.count_nonzero(steps) <= 0.02 * steps.size


def scripted(text):
    """A scripted module from TorchScript source, of a class of its own."""
    module = type("Net", (torch.jit.ScriptModule,), {})()
    module.define(text)
    return module


CONTROL = {
    "a branch on the rank": """
def forward(self, x):
    if x.dim() == 4:
        return torch.relu(x)
    else:
        return torch.neg(x)
""",
    "a loop over sizes": """
def forward(self, x):
    parts = [x]
    for i in range(x.size(1) - 1):
        parts.append(parts[i] * 0.5)
    return torch.cat(parts, 1)
""",
    "a loop with a condition": """
def forward(self, x):
    n = 0
    while n < 3:
        x = torch.relu(x - 0.1)
        n += 1
    return x
""",
    "lists, tuples and slices": """
def forward(self, x):
    shape = [x.size(0), -1]
    pair = (x.view(shape), torch.relu(x).reshape([x.shape[0], x.numel() // x.shape[0]]))
    a, b = pair
    return (a + b)[:, 2:9]
""",
    "in place": """
def forward(self, x):
    y = x + 1.0
    y.mul_(2.0)
    torch.relu_(y)
    return y - x
""",
    "an optional input": """
def forward(self, x, scale: Optional[float] = None):
    if scale is not None:
        x = x * scale
    return torch.relu(x)
""",
}


@pytest.mark.parametrize("name", CONTROL)
def test_control_flow_is_resolved(name):
    with quiet():
        module = scripted(CONTROL[name])
        want = module(torch.from_numpy(sample())).numpy()
    (have,) = evaluate_module(import_model(module, input_shapes={"x": SHAPE}), {"x": sample()})
    np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-6)


def test_outputs_of_a_dictionary_keep_their_keys():
    with quiet():
        module = scripted("def forward(self, x):\n    return {'low': torch.neg(x), 'high': torch.relu(x)}\n")
    mod = import_model(module, input_shapes={"x": SHAPE})
    assert [str(name) for name in mod["main"].attrs["output_names"]] == ["low", "high"]


REFUSED = {
    "def forward(self, x):\n    return torch.fft.fft(torch.lgamma(x)).real + torch.erfinv(x)\n": (
        UnsupportedError,
        r"aten\.erfinv \('erfinv'\), aten\.fft_fft \('fft_fft'\), aten\.lgamma \('lgamma'\)",
    ),
    "def forward(self, x):\n    if x.sum() > 0:\n        x = -x\n    return x\n": (
        UnsupportedError, "depends on data|known only at run time|aten.Bool",
    ),
    "def forward(self, x):\n    x[:, 0].add_(1.0)\n    return x\n": (UnsupportedError, "part of a tensor"),
    "def forward(self, x):\n    if x.dim() != 3:\n        raise ValueError('rank')\n    return x\n": (
        InputError, "refuses its input",
    ),
    "def forward(self, x):\n    while x.dim() > 1:\n        x = x + 1.0\n    return x\n": (
        UnsupportedError, "loop",
    ),
    "def forward(self, x):\n    return torch.zeros([1 << 40])\n": (InputError, "too large|no tensor"),
    "def forward(self, x):\n    return [1, 2][x.dim()]\n": (InputError, "range"),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    kind, message = REFUSED[text]
    with quiet():
        module = scripted(text)
    with pytest.raises(kind, match=message):
        import_model(module, input_shapes={"x": (2, 4)})
