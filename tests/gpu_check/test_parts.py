"""What one half writes is what the other reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from on_gpu import parts
from on_gpu.parts import Case, Description, Input, Part, Unreadable, array_of, drawn


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    stored, made = Input((2, 3), "int8"), drawn((4, 6), "int8", 1, distinct=(2, 6))
    part = Part("one", "gemm", (Case("c", "main", (stored, made), ((4, 2), ())),), 48, (4, 2, 6))
    wanted = Description("cuda", "sm_90", {"tvm": "0.27"}, (part, replace(part, name="two", peer=None)))
    wanted.write(tmp_path)
    assert parts.read(tmp_path) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory; write it with --make"),
        ("{", "is malformed"),
        ("[]", "is malformed"),
        ('{"format": 1}', "is malformed"),
        ('{"format": 2, "parts": []}', "of another version"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / parts.FILE).write_text(text)
    with pytest.raises(Unreadable, match=reason):
        parts.read(tmp_path)


def test_what_is_drawn_repeats_itself() -> None:
    array = array_of(drawn((5, 7), "int8", 3, distinct=(2, 3)))
    assert array.shape == (5, 7) and array.dtype == np.int8
    np.testing.assert_array_equal(array[2:4], array[:2])
    np.testing.assert_array_equal(array[:, 3:6], array[:, :3])
    assert len(np.unique(array[:2, :3])) > 1


def test_integers_fill_their_range_and_floats_are_near_normal() -> None:
    words = array_of(drawn((10000,), "int64", 0, low=3, high=9))
    assert set(words.tolist()) == set(range(3, 10))
    floats = array_of(drawn((99, 101), "float32", 0))
    assert floats.dtype == np.float32
    assert abs(floats.mean()) < 0.05 and 1.1 < floats.std() < 1.2
    assert array_of(drawn((1000,), "uint8", 0)).max() > 250


def test_numbers_that_are_not_those_of_the_other_machine_are_refused() -> None:
    with pytest.raises(Unreadable, match="draws other numbers from a seed"):
        array_of(replace(drawn((4,), "int8", 1), seed=2))


def test_a_library_that_is_damaged_is_refused(folder: Path) -> None:
    (folder / "dense.so.xz").write_bytes(b"no library")
    with pytest.raises(Unreadable, match=r"dense\.so\.xz cannot be read"):
        parts.library_of(folder, parts.read(folder).part("dense"), folder)


def test_parts_are_chosen_by_name_or_group(folder: Path) -> None:
    found = parts.read(folder).parts
    for only, names in (([], 3), (["gemm"], 1), (["kernels", "net"], 2), (["conv2d"], 0)):
        assert len(parts.chosen(found, only)) == names


def test_the_folder_holds_the_runtime_and_little_else(made: Path) -> None:
    names = sorted(file.name for file in (made / "lib").iterdir())
    assert names == ["libtvm_runtime.so", "libtvm_runtime_extra.so"]
    assert {file.suffix for file in made.iterdir() if file.is_file()} == {".xz", ".npz", ".json"}
    document = json.loads((made / parts.FILE).read_text())
    assert document["device"] == "cpu" and len(document["parts"][0]["cases"]) > 10
