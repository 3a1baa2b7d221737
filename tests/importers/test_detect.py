"""How the format of a model is found."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.onnx_models import model, node
from tvm_qat.errors import InputError, MissingDependencyError
from tvm_qat.importers import import_model
from tvm_qat.ir import IRModule


@pytest.fixture
def relu():
    return model([node("Relu", "x", "y")], {"x": (2,)}, ["y"])


def test_by_suffix_by_content_by_type_and_by_name(relu, tmp_path):
    content = relu.SerializeToString()
    for name in ("m.onnx", "M.ONNX", "without_suffix", "model.bin"):
        (tmp_path / name).write_bytes(content)
        assert isinstance(import_model(tmp_path / name), IRModule)
        assert isinstance(import_model(str(tmp_path / name)), IRModule)
    assert isinstance(import_model(content), IRModule)
    assert isinstance(import_model(relu), IRModule)
    assert isinstance(import_model(content, format="onnx"), IRModule)


def test_the_object_that_was_given_is_not_changed(relu):
    before = relu.SerializeToString()
    import_model(relu)
    assert relu.SerializeToString() == before


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (b"hello", {}, "the format of an object of type bytes is not recognized; name one of: tflite"),
        (7, {}, "an object of type int is not recognized"),
        (b"", {"format": "caffe"}, "format 'caffe' is not known; use one of: tflite"),
        (b"", {"format": "onnx"}, "the file is empty"),
    ],
)
def test_what_is_not_recognized(source, options, message):
    with pytest.raises(InputError, match=message):
        import_model(source, **options)


def test_a_file_of_unknown_content_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt is not recognized"):
        import_model(path)


def test_importing_the_package_does_not_import_onnx():
    code = "import sys, tvm_qat.importers; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_tensorflow_the_pip_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tvm_qat.importers.options.find_spec", lambda _name: None)
    path = tmp_path / "graph.pb"
    path.write_bytes(b"\x0a\x00")
    with pytest.raises(MissingDependencyError, match=r"pip install 'tvm-qat\[tensorflow\]'") as caught:
        import_model(path)
    assert caught.value.exit_code == 5


def test_a_folder_is_a_model_only_with_its_graph(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a regular file"):
        import_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    monkeypatch.setattr("tvm_qat.importers.options.find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match="tensorflow"):
        import_model(tmp_path)
