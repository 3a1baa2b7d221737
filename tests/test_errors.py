from __future__ import annotations

import pytest
import tvm_ffi

from tvm_qat import errors

CLASSES = [
    errors.TvmQatError, errors.InputError, errors.UnsupportedError, errors.PackageError,
    errors.MissingDependencyError,
]  # fmt: skip


@pytest.mark.parametrize("error", CLASSES)
def test_class_and_message_survive_tvms_foreign_function_interface(error: type[Exception]):
    def fail() -> None:
        raise error("model.onnx: node a: the reason")

    crossed = tvm_ffi.convert(fail)
    with pytest.raises(error, match=r"model\.onnx: node a: the reason") as caught:
        crossed()
    assert type(caught.value) is error


def test_exit_codes_tell_whose_fault_it_is():
    assert errors.TvmQatError.exit_code == 1
    assert {e.exit_code for e in (errors.InputError, errors.UnsupportedError, errors.PackageError)} == {4}
    assert errors.MissingDependencyError.exit_code == 5


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, "the reason"),
        ({"file": "m.onnx"}, "m.onnx: the reason"),
        ({"node": "'conv1' (Conv)"}, "node 'conv1' (Conv): the reason"),
        ({"file": "m.onnx", "node": "a", "remedy": "do this"}, "m.onnx: node a: the reason; do this"),
    ],
)
def test_a_located_message_names_what_is_known(facts: dict, line: str):
    assert errors.located("the reason", **facts) == line


def test_a_located_message_is_one_line():
    message = errors.located("several\nlines\t of  text", file="a\nb", remedy="try\r\nagain")
    assert message == "a b: several lines of text; try again"
