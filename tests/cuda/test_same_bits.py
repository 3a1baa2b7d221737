"""What the operators' own cases leave out: rows, functions, tiles of every size, TVM's own kernels."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, compiled, expected, module_of
from tests.kernels.linear_cases import conv_case, integers
from tests.support.cuda import EMULATOR, OLDER, TARGET, Emulated, needs_compiler
from tests.support.steps import module_of_steps
from tvm_qat import pipeline
from tvm_qat.importers import import_model
from tvm_qat.ir import BlockBuilder, Expr, IRModule, TensorType, Var, const, relax, tvm
from tvm_qat.kernels.cuda import products, tiles
from tvm_qat.kernels.cuda.source import device_code
from tvm_qat.kernels.functions import FORMULAS, evaluate
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

pytestmark = needs_compiler

Array = np.ndarray[Any, Any]
_op = relax.op
ROOT = Path(__file__).resolve().parents[2]
OUTPUT = QParams(1 / 200, 3, "uint8")


def _data(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) * 3


def _softmax(length: int) -> Any:
    return lambda x: [
        _op.multiply(x, const(np.float32(0.125))),
        lambda v: _op.add(v, const(_data(1, length))),
        lambda v: _op.nn.softmax(v, -1),
        lambda v: qnn.quantize(v, OUTPUT),
    ]


def _norm(length: int) -> Any:
    gamma, beta = const(_data(length)), const(_data(length + 1)[1:])
    return lambda x: [
        _op.nn.gelu(x),
        lambda v: _op.nn.layer_norm(v, gamma, beta, axes=[-1], epsilon=1e-5),
        lambda v: qnn.quantize(v, OUTPUT),
    ]


def _moved(_length: int) -> Any:
    return lambda x: [_op.permute_dims(x, [1, 0]), lambda v: qnn.quantize(v, OUTPUT)]


def _by_tvm(length: int) -> Any:
    """Operators without a kernel of ours: reductions, gathering, a reshape between them."""
    return lambda x: [
        _op.sum(x, axis=[0], keepdims=True),
        lambda v: _op.reshape(v, (length,)),
        lambda v: _op.take(v, const(np.arange(0, length, 2)), axis=0),
    ]


def _of_one_number(_length: int) -> Any:
    """A reduction of everything, then scalars."""
    return lambda x: [_op.max(x), lambda v: _op.astype(v, "int32"), lambda v: _op.astype(v, "float32")]


@pytest.mark.parametrize(
    "length", [33, 1100, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 31, 197))]
)
@pytest.mark.parametrize("build", [_softmax, _norm, _moved, _by_tvm, _of_one_number])
def test_islands_have_the_bits_of_a_cpu(build: Any, length: int, tmp_path: Path) -> None:
    x = _data(6, length)
    mod = module_of_steps(build(length), x.shape)
    wanted = compiled(mod, TARGETS["plain"])["main"](tvm.runtime.tensor(x)).numpy()
    (have,) = Emulated(mod, tmp_path).run([x])
    assert have.tobytes() == np.asarray(wanted).tobytes()


def test_functions_have_the_bits_of_numpy(tmp_path: Path) -> None:
    """Numbers of every exponent and sign, and those around one."""
    rng = np.random.default_rng(0)
    wide = rng.integers(-(2**31), 2**31, 20_000).astype(np.int32).view(np.float32)
    x = np.concatenate([wide, rng.uniform(-12, 12, 20_000).astype(np.float32)])
    y = rng.permutation(x)
    loops = [
        f'extern "C" void all_{name}(const float* x, const float* y, float* out, long n) '
        f"{{ for (long i = 0; i < n; i++) out[i] = qat_{name}(x[i]{', y[i]' if name == 'pow' else ''}); }}"
        for name in FORMULAS
    ]
    code = "\n".join([f'#include "{EMULATOR}"', device_code(primitives=False), *loops])
    (tmp_path / "f.cpp").write_text(code)
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, "-o", "f.so", "f.cpp"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "f.so"))
    for name, formula in FORMULAS.items():
        out = np.empty_like(x)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y, out)]
        getattr(library, f"all_{name}")(*pointers, ctypes.c_long(x.size))
        wanted = evaluate(formula, x, y) if name == "pow" else evaluate(formula, x)
        assert np.array_equal(out, wanted, equal_nan=True), name


@pytest.mark.parametrize(
    "name",
    [
        "WIDE",
        "DOT_WIDE",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("TALL", "SMALL", "DOT_TALL", "DOT_SMALL")),
    ],
)
def test_every_tile_adds_up_what_it_should(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several blocks along both sides, rests of both, depths of one to nine steps of the ring."""
    choose = "choose_dot_tile" if name.startswith("DOT") else "choose_tile"
    monkeypatch.setattr(products, choose, lambda *_: getattr(tiles, name))
    rng = np.random.default_rng(3)
    cases = [
        conv_case("long", rng, size=(13, 11), inner=64, outer=136, zero=7),
        conv_case("short", rng, size=(13, 11), kernel=(1, 1), padding=(0,) * 4, inner=16, outer=132),
        conv_case("odd", rng, size=(12, 12), inner=5, outer=67, data="int8", zero=-4, stride=2),
        conv_case("of eight", rng, size=(9, 9), inner=8, outer=40, dilation=2, padding=(2,) * 4, batch=2),
    ]
    mod = module_of(cases)
    machine = Emulated(mod, tmp_path, OLDER if name.startswith("DOT") else TARGET)
    for i, one in enumerate(cases):
        wanted = expected(mod, i, one)
        for early in (False, True):
            (have,) = machine.run(one.inputs, f"case{i}", early=early, backwards=early)
            assert np.array_equal(have, wanted), (one.name, early)


_DENSE: dict[str, Any] = {"kernel": (1, 1), "padding": (0,) * 4, "size": (1, 1)}


def test_few_rows_are_added_up_by_warps(tmp_path: Path) -> None:
    """One lane and 32 along the depth, one to four columns a lane, depth shared or not, rests of all."""
    rng = np.random.default_rng(4)
    sizes = [
        (1, 2048, 440),
        (1, 1280, 10),
        (8, 768, 36),
        (1, 16, 300),
        (3, 9, 37),
        (5, 513, 31),
        (2, 48, 260),
    ]
    cases = [
        *(
            conv_case(f"{m} {k} {n}", rng, batch=m, inner=k, outer=n, **_DENSE)
            for m, k, n in (*sizes, (1, 1, 1))
        ),
        conv_case("taps", rng, size=(4, 4), stride=2, inner=64, outer=96, data="int8", zero=-7),
        conv_case("odd taps", rng, size=(3, 4), stride=2, inner=5, outer=33, zero=200),
    ]
    mod = module_of(cases)
    machine = Emulated(mod, tmp_path)
    used = re.findall(r"QatThinTile<(\d+), (\d+), (\d+), (\d+), (\d+)>", machine.source)
    assert len(used) == len(cases)
    assert {t[1] for t in used} == {"1", "4"} and {t[4] for t in used} == {"1", "2", "4"}
    for i, one in enumerate(cases):
        (have,) = machine.run(one.inputs, f"case{i}", backwards=bool(i % 2))
        assert np.array_equal(have, expected(mod, i, one)), one.name


def test_depthwise_takes_any_number_of_channels(tmp_path: Path) -> None:
    """Pixels that begin in every place of a word, and a last word with one to four channels."""
    rng = np.random.default_rng(7)
    counts = (2, 3, 5, 19, 24)
    cases = [
        conv_case(f"{c}", rng, size=(5, 6), groups=c, inner=1, outer=1, data=data, zero=zero, stride=stride)
        for c in counts
        for data, zero, stride in (("uint8", 200, 1), ("int8", -5, 2))
    ]
    mod = module_of(cases)
    machine = Emulated(mod, tmp_path)
    assert re.findall(r"qat_depthwise<(\d+)", machine.source) == [str(c) for c in counts for _ in range(2)]
    for i, one in enumerate(cases):
        (have,) = machine.run(one.inputs, f"case{i}", backwards=bool(i % 2))
        assert np.array_equal(have, expected(mod, i, one)), one.name


@pytest.mark.parametrize("target", [TARGET, OLDER], ids=["mma", "dp4a"])
def test_shares_of_the_depth_are_added_up(target: Any, tmp_path: Path) -> None:
    """Several tiles along both sides, shares of unequal length, a depth that ends inside of a step."""
    rng = np.random.default_rng(6)
    cases = [
        conv_case("four", rng, size=(5, 5), inner=256, outer=72),
        conv_case("three", rng, size=(9, 8), inner=203, outer=67, data="int8", zero=-3),
    ]
    mod = module_of(cases)
    machine = Emulated(mod, tmp_path, target)
    assert re.findall(r"qat_add_shares<(\d+)", machine.source) == ["4", "3"]
    for i, one in enumerate(cases):
        for early in (False, True):
            (have,) = machine.run(one.inputs, f"case{i}", early=early, backwards=early)
            assert np.array_equal(have, expected(mod, i, one)), (one.name, early)


def _attention(
    left: str, right: str, zeros: tuple[int, int], transposed: bool, rows: int = 37, depth: int = 32
) -> tuple[IRModule, list[Array]]:
    rng = np.random.default_rng(5)
    a = integers(rng, left, 2, 3, rows, depth)
    b = integers(rng, right, *((2, 70, 3, depth) if transposed else (2, 3, depth, 70)))
    builder = BlockBuilder()
    x, y = (Var(name, TensorType(v.shape, str(v.dtype))) for name, v in (("x", a), ("y", b)))
    with builder.function("main", [x, y]):
        with builder.dataflow():
            moved: Expr = builder.emit(_op.permute_dims(y, [0, 2, 3, 1])) if transposed else y
            result = builder.emit_output(qnn.batch_matmul(x, moved, *zeros))
        builder.emit_func_output(result)
    return builder.get(), [a, b]


@pytest.mark.parametrize(
    ("target", "rows"), [(TARGET, 37), (OLDER, 37), (TARGET, 5)], ids=["mma", "dp4a", "few rows"]
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("left", "right", "zeros"),
    [
        ("uint8", "uint8", (128, 3)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("int8", "int8", (0, 0)),
                ("uint8", "int8", (5, 0)),
                ("int8", "uint8", (0, 7)),
            )
        ),
    ],
)
def test_products_of_two_tensors(
    left: str, right: str, zeros: tuple[int, int], transposed: bool, target: Any, rows: int, tmp_path: Path
) -> None:
    mod, (a, b) = _attention(left, right, zeros, transposed, rows)
    folded = pipeline.run(mod)
    machine = Emulated(folded, tmp_path, target)
    assert ("qat_thin<" in machine.source) == (rows == 5 and transposed)
    (have,) = machine.run([a, b])
    b = b.transpose(0, 2, 3, 1) if transposed else b
    wanted = (a.astype(np.int64) - zeros[0]) @ (b.astype(np.int64) - zeros[1])
    assert np.array_equal(have, wanted)


@pytest.mark.parametrize("depth", [197, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 29))])
@pytest.mark.parametrize(
    ("target", "rows"), [(TARGET, 37), (OLDER, 37), (TARGET, 5)], ids=["mma", "dp4a", "few rows"]
)
def test_rows_may_begin_anywhere(depth: int, target: Any, rows: int, tmp_path: Path) -> None:
    """Of no whole number of words: read as words around them, in every place of a word."""
    mod, (a, b) = _attention("uint8", "int8", (128, 3), True, rows, depth)
    (have,) = Emulated(pipeline.run(mod), tmp_path, target).run([a, b])
    wanted = (a.astype(np.int64) - 128) @ (b.transpose(0, 2, 3, 1).astype(np.int64) - 3)
    assert np.array_equal(have, wanted)


@pytest.mark.slow
def test_the_demo_model_has_the_bits_of_a_cpu(tmp_path: Path) -> None:
    folded = pipeline.run(import_model(ROOT / "tvm_qat/data/demo/digits_cnn.onnx"))
    machine = compiled(folded, TARGETS["plain"])
    emulated = Emulated(folded, tmp_path)
    for seed in range(3):
        x = np.random.default_rng(seed).random((1, 1, 16, 16)).astype(np.float32)
        wanted = machine["main"](tvm.runtime.tensor(x)).numpy()
        (have,) = emulated.run([x], early=bool(seed % 2), backwards=bool(seed % 2))
        assert have.tobytes() == np.asarray(wanted).tobytes()


def test_the_source_grows_with_a_chain_of_clamps_not_with_its_powers(tmp_path: Path) -> None:
    """Each step reads its operand once: 40 of them are 40 calls, not 2 to the 40th."""

    def clamps(x: Var) -> list[Any]:
        steps: list[Any] = [_op.negative(x)]
        for i in range(20):
            low, high = const(np.float32(-2.5)), const(np.float32(2 + i))
            steps += [lambda v, low=low: _op.maximum(v, low), lambda v, high=high: _op.minimum(v, high)]
        return steps

    x = np.array([-np.inf, -3, 0.5, 3, np.nan], np.float32)
    mod = module_of_steps(clamps, x.shape)
    machine = Emulated(mod, tmp_path)
    assert len(machine.source) < 10_000
    (have,) = machine.run([x])
    wanted = compiled(mod, TARGETS["plain"])["main"](tvm.runtime.tensor(x)).numpy()
    assert have.tobytes() == np.asarray(wanted).tobytes()
