"""Damaged files and paths, and models that other tools made for themselves."""

from __future__ import annotations

import os

import numpy as np
import pytest
from onnx import ModelProto

from tests.importers.onnx.test_bad_input import conv, edited, q
from tests.support.corpus import CORPUS, needs_corpus
from tvm_qat.errors import InputError
from tvm_qat.importers import import_model

FILES = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no model, it is a note to my friends", "is not an ONNX model"),
    "noise": (np.random.default_rng(0).bytes(4000), "is not an ONNX model"),
    "zeros": (bytes(1000), "is not an ONNX model"),
    "half a model": (conv().SerializeToString()[:200], "is not an ONNX model"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_models(name, tmp_path):
    content, fragment = FILES[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=fragment):
        import_model(path)


def test_every_truncation_is_refused_unless_only_an_unused_domain_is_cut_off(tmp_path):
    made = q()
    content = made.SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if (
            content[:size]
            == edited(ModelProto.FromString(content), lambda m: m.opset_import.pop()).SerializeToString()
        ):
            continue
        with pytest.raises(InputError):
            import_model(path)


def test_names_that_are_not_utf8(tmp_path):
    content = q().SerializeToString().replace(b"quant", b"\xff\xfequa")
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="names that are not UTF-8"):
        import_model(path)


def test_mutated_bytes_end_in_a_module_or_in_one_line():
    generator = np.random.default_rng(4)
    contents = [q().SerializeToString(), conv(pads=[1, 1, 1, 1]).SerializeToString()]
    for turn in range(600):
        data = bytearray(contents[turn % 2])
        for position in generator.integers(0, len(data), generator.integers(1, 4)):
            data[position] = generator.integers(256)
        message = ""
        try:
            import_model(bytes(data), format="onnx")
        except InputError as error:
            message = str(error)
        assert "\n" not in message


def test_paths_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for name, fragment in (
        ("gone.onnx", "cannot be read"),
        ("pipe.onnx", "not a regular file"),
        ("", "not a regular"),
    ):
        with pytest.raises(InputError, match=fragment):
            import_model(tmp_path / name)


@needs_corpus
@pytest.mark.corpus
def test_the_invalid_model_of_the_corpus_is_refused():
    with pytest.raises(InputError, match=r"toycar_2sort.onnx: node .*\(Gemm\).*tensor\(int8\)"):
        import_model(CORPUS / "mlonmcu" / "toycar_2sort.onnx")
