from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import GRID, OUTPUT_GRID, float_module, integer_module
from tvm_qat.compiler import compile
from tvm_qat.errors import InputError
from tvm_qat.package import Package, load, signature
from tvm_qat.verification.evaluate import evaluate_module


def image(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(batch).normal(size=(batch, 2, 4, 4)).astype(np.float32)


def test_a_saved_package_gives_the_bits_of_the_one_in_memory(package: Package, saved: Path):
    loaded = load(saved)
    for batch in (1, 2, 5):
        fresh, again = package.run([image(batch)]), loaded.run({"image": image(batch)})
        assert list(fresh) == list(again) == ["result"]
        np.testing.assert_array_equal(fresh["result"], again["result"])


def test_a_package_computes_what_its_module_means(package: Package):
    (expected,) = evaluate_module(float_module(), [image()])
    np.testing.assert_allclose(package.run([image()])["result"], expected, rtol=1e-5, atol=1e-5)


def test_integer_code_gives_the_bits_of_the_reference():
    mod = integer_module()
    (expected,) = evaluate_module(mod, [image()])
    np.testing.assert_array_equal(compile(mod).run([image()])["result"], expected)


def test_a_package_knows_names_shapes_and_grids_of_its_boundary(saved: Path):
    loaded = load(saved)
    assert [(i.name, i.shape, i.dtype) for i in loaded.inputs] == [("image", ("n", 2, 4, 4), "float32")]
    assert [(o.name, o.shape, o.dtype) for o in loaded.outputs] == [("result", ("n", 3, 4, 4), "float32")]
    assert [layer["name"] for layer in loaded.layers] == ["conv1", "relu1"]
    assert loaded.totals["int8_mac_share"] == 0.0


def test_the_grid_of_a_float_boundary_is_that_of_its_quantize():
    mod = integer_module()
    assert [info.qparams for info in signature.inputs_of(mod)] == [GRID]
    assert [info.qparams for info in signature.outputs_of(mod)] == [OUTPUT_GRID]


def test_rebuilding_gives_the_same_bytes_in_another_process(package: Package, tmp_path: Path):
    script = (
        "import sys; from tests.support.tiny import float_module; from tvm_qat.compiler import compile;"
        "compile(float_module()).save(sys.argv[1])"
    )
    path = tmp_path / "other.tar"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=Path(__file__).parents[2])
    assert path.read_bytes() == package.to_bytes() == compile(float_module()).to_bytes()


def test_a_package_holds_no_time_no_owner_and_no_path(saved: Path, tmp_path: Path):
    with tarfile.open(saved) as tar:
        members = tar.getmembers()
    assert [(m.mtime, m.uid, m.gid, m.uname) for m in members] == [(0, 0, 0, "")] * len(members)
    raw = saved.read_bytes()
    assert b"/tmp" not in raw and str(Path.cwd()).encode() not in raw


def test_the_description_is_json_with_a_schema_and_checksums(saved: Path):
    with tarfile.open(saved) as tar:
        names = tar.getnames()
        document = json.loads(tar.extractfile("meta.json").read())
    assert document["schema"] == 3
    assert sorted(["meta.json", *document["members"]]) == sorted(names)
    assert document["target"]["kind"] == "llvm"
    assert set(document["versions"]) == {"tvm_qat", "tvm", "tvm_ffi", "llvm"}


def test_saving_leaves_nothing_but_the_package(package: Package, tmp_path: Path):
    package.save(tmp_path / "a.tar")
    package.save(tmp_path / "a.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_failed_save_leaves_the_old_file(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "a.tar"
    target.write_bytes(b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        package.save(target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("place", ["missing/a.tar", "."])
def test_an_impossible_output_is_refused(package: Package, tmp_path: Path, place: str):
    with pytest.raises(InputError) as caught:
        package.save(tmp_path / place)
    assert "\n" not in str(caught.value)


def test_benchmark_gives_one_figure_for_each_repeat(saved: Path):
    seconds = load(saved).benchmark(repeat=3, number=2)
    assert len(seconds) == 3
    assert all(figure > 0 for figure in seconds)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "0 inputs given, the model has 1"),
        ({"picture": image()}, "no data for input 'image'"),
        ({"image": image(), "other": image()}, "the model has no input 'other'"),
        ([image().astype(np.float64)], "it takes"),
        ([image()[0]], "it takes"),
        ([image()[:, :1]], "it takes"),
        ([[["text"]]], "no array of float32"),
    ],
)
def test_data_that_does_not_fit_is_refused(package: Package, inputs: object, reason: str):
    with pytest.raises(InputError, match=reason):
        package.run(inputs)
