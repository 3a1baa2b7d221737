"""What a build script that only knows TVM gets from having tvm_qat installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from tvm.relax.frontend.onnx import from_onnx
from tvm.relax.pipeline import PIPELINE_MAP

import tvm_qat
from tests.support.tiny import integer_module
from tvm_qat import plugin
from tvm_qat.ir import relax, tvm
from tvm_qat.verification.evaluate import evaluate_module

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tvm_qat" / "data" / "demo" / "digits_cnn.onnx"


def run(executable: object, data: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(data)).numpy()


def test_the_pipeline_makes_integer_code_in_a_tvm_build_script():
    plugin.autoload()
    mod = integer_module()
    data = np.random.default_rng(3).normal(size=(2, 2, 4, 4)).astype(np.float32)
    executable = tvm.compile(mod, "llvm", relax_pipeline=relax.get_pipeline("qat"))
    np.testing.assert_array_equal(run(executable, data), evaluate_module(mod, [data])[0])


def test_a_module_of_tvms_own_importer_compiles_to_the_same_bits_as_the_file():
    data = np.random.default_rng(4).random((1, 1, 16, 16), np.float32)
    package = tvm_qat.compile(from_onnx(onnx.load(MODEL), keep_params_in_input=False))
    assert package.totals["int8_mac_share"] == 1.0
    (ours,), (from_file,) = package.run([data]).values(), tvm_qat.compile(MODEL).run([data]).values()
    np.testing.assert_array_equal(ours, from_file)


def test_registering_twice_keeps_the_first():
    plugin.autoload()
    first = PIPELINE_MAP["qat"]
    plugin.autoload()
    assert PIPELINE_MAP["qat"] is first


def test_tvm_calls_the_plugin_without_a_warning_in_every_order_of_imports():
    call = "from tvm_qat.plugin import autoload; autoload(); from tvm import relax; relax.get_pipeline('qat')"
    for first in ("tvm", "tvm_qat", "tvm_qat.ir", "tvm_qat.compiler"):
        code = f"import {first}; {call}; import tvm; tvm.ir.Op.get('qnn.conv2d')"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
