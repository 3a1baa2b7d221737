from __future__ import annotations

import pytest

from tvm_qat.bench.layers import table

KERNELS = [
    {"name": "conv", "kernel": "conv_kernel", "seconds": 3e-6},
    {"name": "conv", "kernel": "pad", "seconds": 1e-6},
    {"name": "softmax", "kernel": "softmax", "seconds": 4e-6},
]


def test_rates_are_two_operations_for_each_multiply_accumulate():
    conv = table(KERNELS, {"conv": 300_000}, 400.0).layers[0]
    assert conv.gops == pytest.approx(200)
    assert conv.of_peak == pytest.approx(0.5)


def test_the_slowest_kernel_of_a_node_does_its_products():
    found = table(KERNELS, {"conv": 300_000}, None)
    assert [layer.macs for layer in found.layers] == [300_000, 0, 0]
    assert found.macs == 300_000


def test_what_multiplies_nothing_has_no_rate():
    assert table(KERNELS, {"conv": 300_000}, 400.0).layers[2].gops is None


def test_without_a_peak_there_is_no_share_of_it():
    assert table(KERNELS, {"conv": 300_000}, None).layers[0].of_peak is None


def test_shares_add_up():
    found = table(KERNELS, {}, None)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.seconds == pytest.approx(8e-6)
