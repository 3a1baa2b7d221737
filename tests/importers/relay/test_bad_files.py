"""Damaged texts, metadata and parameter files: one line, never a crash."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.importers.relay.text import array_bytes, params_bytes, program
from tvm_qat.errors import InputError
from tvm_qat.importers import import_model
from tvm_qat.importers.relay.binary import arrays_of_file

W = np.arange(12, dtype=np.int8).reshape(3, 4)
TEXT = """def @main(%x: Tensor[(2, 4), int8], %w: Tensor[(2), int32]) -> Tensor[(2, 3), int8] {
  %0 = qnn.dense(%x, meta[relay.Constant][0] /* ty=Tensor[(3, 4), int8] */, 3, 0, 0.5f, 0.25f,
                 units=3, out_dtype="int32") /* ty=Tensor[(2, 3), int32] span=fc:0:0 */;
  %1 = nn.bias_add(%0, meta[relay.Constant][1]);
  %2 = fn (%p: Tensor[(2, 3), int32], Primitive=1) { qnn.requantize(%p, 0.125f, 0, 0.5f, -3, axis=1) };
  %3 = %2(%1);
  %4 = (%3, clip(%3, a_min=-100f, a_max=90f));
  %5 = nn.pad(%4.1, -3f, pad_width=[[0, 0], [1, 1]]);
  reshape(strided_slice(%5, begin=[0, 1], end=[2, 4], axes=[0, 1]), newshape=[0, -1])
}"""
GOOD = program(TEXT, [W, np.array([1, 2, 3], np.int32)])


def one_line(data: bytes) -> str:
    with pytest.raises(InputError) as error:
        import_model(data, format="relay")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_whole_text_is_read() -> None:
    assert list(import_model(GOOD)["main"].attrs["input_names"]) == ["x", "w"]


def test_empty_truncated_and_foreign_files() -> None:
    assert "attribute" in one_line(b"")
    assert "not text" in one_line(b"\xff\xfe\x00")
    assert "not recognized" not in one_line(b"def @main() {}")
    for end in range(12, len(GOOD) - 1, 97):
        one_line(GOOD[:end])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"root": 1', '"root": 99', "does not have"),
        ('"root": 1', '"root": -1', "does not have"),
        ('"root": 1', '"root": true', "does not have"),
        ('"nodes"', '"knots"', "list of nodes"),
        ('"data": "1"', '"data": "9"', "without data"),
        ('"data": "1"', '"data": "x"', "without data"),
        ('"b64ndarrays"', '"blobs"', "without data"),
        ('"relay.Constant"\n', '"relay.Other"\n', "holds|missing"),
        ("#[metadata]\n{", "#[metadata]\n[", "JSON"),
        ("#[metadata]\n{", "#[metadata]\n" + "[" * 100000, "JSON"),
        ("P6G0", "Q6G0", "not an array"),
        ("P6G0", "P6G", "base64"),
        ("meta[relay.Constant][1]", "meta[relay.Constant][7]", "holds 2 constants"),
        ("meta[relay.Constant][1]", "meta[relay.TensorType][0]", "not supported"),
    ],
)
def test_metadata(old: str, new: str, reason: str) -> None:
    text = GOOD.decode()
    assert old in text
    with pytest.raises(InputError, match=reason):
        import_model(text.replace(old, new, 1).encode())


def test_parameter_files() -> None:
    good = params_bytes({"w": np.arange(2, dtype=np.int32), "v": W})
    assert list(arrays_of_file(good)) == ["w", "v"]
    for end in range(len(good)):
        with pytest.raises(InputError):
            arrays_of_file(good[:end])
    rng = random.Random(3)
    for _ in range(500):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            arrays_of_file(bytes(damaged))
        except InputError:
            continue


def test_hostile_sizes_in_a_parameter_file() -> None:
    head = struct.pack("<QQ", 0xF7E58D4F05049CB7, 0)
    huge = struct.pack("<Q", 1 << 62)
    array = array_bytes(W)
    for data in (
        head + huge,
        head + struct.pack("<QQ", 1, 1 << 62),
        head + struct.pack("<Q", 1) + struct.pack("<Q", 1) + b"w" + huge,
        params_bytes({"w": W}).replace(struct.pack("<q", 3), struct.pack("<q", 1 << 61)),
        params_bytes({"w": W}).replace(array[24:32], struct.pack("<iBBH", 1 << 30, 0, 8, 1)),
        params_bytes({"w": W}).replace(array[24:32], struct.pack("<iBBH", 2, 9, 8, 1)),
        params_bytes({"w": W})[:-1] + b"",
    ):
        with pytest.raises(InputError):
            arrays_of_file(data)


def test_a_parameter_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.relay").write_bytes(GOOD)
    (tmp_path / "m.params").write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(InputError, match=r"^m\.params: is not a file of parameters.*save_param_dict"):
        import_model(tmp_path / "m.relay", params=tmp_path / "m.params")
    with pytest.raises(InputError, match="cannot be read"):
        import_model(tmp_path / "m.relay", params=tmp_path / "none")


def test_other_formats_take_no_parameter_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(InputError, match="onnx takes no file of parameters"):
        import_model(tmp_path / "m.onnx", params=tmp_path / "m.onnx")


def test_tuples_that_double_are_no_bomb() -> None:
    doubled = "".join(f"%{i + 1} = (%{i}, %{i}); " for i in range(60))
    body = f"%0 = exp(%x); {doubled} %60"
    assert "more than" in one_line(program(f"def @main(%x: Tensor[(3), float32]) {{ {body} }}"))


def test_functions_that_double_are_no_bomb() -> None:
    functions = "\n".join(f"def @f{i}(%x) {{ @f{i + 1}(@f{i + 1}(%x)) }}" for i in range(30))
    text = f"def @main(%x: Tensor[(3), float32]) {{ @f0(%x) }}\n{functions}\ndef @f30(%x) {{ %x }}"
    assert "more than" in one_line(program(text))


PIECES = (
    "%0", "%x", "(", ")", "{", "}", "[", "]", ",", ";", "=", ".", "-", "0", "-1", "1e99f", "2147483648",
    "nanf", "None", "True", '"', "/*", "*/", "fn", "let", "meta", "@main", "axis=", "Tensor", "?", "\x00",
    "newshape=[-4]", "qnn.add", "nn.conv2d", "int8", "99999999999", "é",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_mutations_are_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    text = GOOD.decode()
    head = text.index("#[metadata]")
    for _ in range(60):
        mutant = text
        for _ in range(rng.randint(1, 3)):
            at, size = rng.randrange(12, head), rng.choice((0, 1, 1, 3, 9))
            mutant = mutant[:at] + rng.choice(PIECES) + mutant[at + size :]
        with contextlib.suppress(InputError):
            import_model(mutant.encode(), format="relay")
