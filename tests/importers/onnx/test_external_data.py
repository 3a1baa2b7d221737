"""External data is read from below the model's folder and from nowhere else."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support.onnx_models import f32, model, node
from tests.support.run import simulate
from tvm_qat.errors import InputError
from tvm_qat.importers import import_model

VALUES = f32(1, 2, 3, 4)


CONTENT = VALUES.tobytes()


def external(folder, location, data=CONTENT, offset=None, length=None, write=True):
    """A model whose constant `w` lies in the file `location`."""
    made = model([node("Add", "x w", "y")], {"x": (4,)}, ["y"], {"w": VALUES})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": length}
    for key, value in entries.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    if write:
        target = folder / location
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_data_beside_and_below_the_model(tmp_path):
    for location, offset in (("w.bin", None), ("sub/w.bin", 8)):
        data = b"\0" * (offset or 0) + VALUES.tobytes()
        path = external(tmp_path, location, data, offset, 16)
        found = simulate(path, {"x": np.zeros(4, np.float32)})["y"]
        np.testing.assert_array_equal(found, VALUES)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../w.bin", "leads out of the model's folder"),
        ("sub/../../w.bin", "leads out of the model's folder"),
        ("/etc/hostname", "leads out of the model's folder"),
        ("..\\w.bin", "leads out of the model's folder"),
        ("gone.bin", "is missing"),
        ("", "no file is named"),
        (".", "is not a regular file"),
    ],
)
def test_places_that_are_refused(tmp_path, location, message):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    path = external(folder, location, write=False)
    with pytest.raises(InputError, match=message) as error:
        import_model(path)
    assert str(error.value).startswith("m.onnx: ") and "\n" not in str(error.value)


def test_links_out_of_the_folder_are_refused_and_links_inside_are_followed(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    (folder / "real.bin").write_bytes(VALUES.tobytes())
    os.symlink(tmp_path / "secret.bin", folder / "out.bin")
    os.symlink(folder / "real.bin", folder / "in.bin")
    with pytest.raises(InputError, match="link out of the model's folder"):
        import_model(external(folder, "out.bin", write=False))
    assert import_model(external(folder, "in.bin", write=False)) is not None


@pytest.mark.parametrize(
    ("offset", "length", "message"),
    [
        (4, None, "ends at 16, before 20"),
        (0, 12, "12 bytes are declared but the shape needs 16"),
        ("-4", None, "is not a number"),
        ("x", None, "is not a number"),
        (1 << 60, None, "ends at 16"),
    ],
)
def test_offsets_and_lengths_that_do_not_fit(tmp_path, offset, length, message):
    with pytest.raises(InputError, match=message):
        import_model(external(tmp_path, "w.bin", offset=offset, length=length))


def test_a_huge_shape_over_a_small_file_allocates_nothing(tmp_path):
    path = external(tmp_path, "w.bin")
    made = onnx.load(path, load_external_data=False)
    made.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]
    path.write_bytes(made.SerializeToString())
    with pytest.raises(InputError):
        import_model(path)


def test_a_model_without_a_path_has_no_external_data(tmp_path):
    made = onnx.load(external(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(InputError, match="came without a path"):
        import_model(made)


def test_a_pipe_as_data_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        import_model(external(tmp_path, "pipe", write=False))
