"""Damaged and contradictory files: one line that names the file's fault, and nothing else."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from tests.support.tflite_models import constant, graph, model, one, operator, tensor
from tvm_qat.errors import InputError
from tvm_qat.importers import import_model


def _conv() -> bytes:
    tensors = [
        tensor("x", (1, 5, 5, 2), "int8", 0.1),
        constant("w", np.ones((3, 3, 3, 2), np.int8), [0.1, 0.2, 0.3]),
        constant("b", np.zeros(3, np.int32), [0.01, 0.02, 0.03]),
        tensor("y", (1, 3, 3, 3), "int8", 0.5),
    ]
    return one(
        "CONV_2D", tensors, "Conv2DOptions", padding=1, strideH=1, strideW=1, dilationHFactor=1,
        dilationWFactor=1,
    )  # fmt: skip


def _refused(content: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        import_model(content, format="tflite")
    assert "\n" not in str(caught.value)


def _one_line_or_nothing(content: bytes) -> None:
    """Imports, or says why not; any other exception fails the test."""
    said = ""
    with contextlib.suppress(InputError):
        try:
            import_model(content, format="tflite")
        except InputError as error:
            said = str(error)
            raise
    assert "\n" not in said


def test_every_truncation_is_refused_or_harmless():
    """The data of constants lies anywhere, so a cut may spare all that is read."""
    content = _conv()
    import_model(content)
    for length in range(len(content)):
        _one_line_or_nothing(content[:length])


def test_every_flipped_byte_is_refused_or_harmless():
    """Offsets that point outside, at themselves, or backwards; lengths of billions."""
    content = bytearray(_conv())
    for place in range(len(content)):
        for value in (0x00, 0x7F, 0xFF):
            kept, content[place] = content[place], value
            _one_line_or_nothing(bytes(content))
            content[place] = kept


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04 and more", "is not a TFLite model"),
        (b"\x1c\0\0\0TFL3", "damaged"),
    ],
)
def test_no_model(content, match):
    _refused(content, match)


def _changed(**changes) -> bytes:
    x = tensor("x", (2, 3), "int8", 0.1)
    for name, value in changes.items():
        target = x if hasattr(x, name) else x.quantization
        setattr(target, name, value)
    return one("RELU", [x, tensor("y", (2, 3), "int8", 0.1)])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (_changed(scale=[float("nan")]), "tensor 'x': scale nan is not finite"),
        (_changed(scale=[-1.0]), "tensor 'x': scale -1 is not positive"),
        (_changed(zeroPoint=[200]), r"tensor 'x': zero point 200 is outside \[-128, 127\]"),
        (_changed(scale=[0.1, 0.2], zeroPoint=[0, 0], quantizedDimension=5), "dimension 5, but has 2"),
        (_changed(scale=[0.1, 0.2], zeroPoint=[0, 0], quantizedDimension=1), "2 channel parameters for 3"),
        (_changed(shape=[-2, 3]), r"its shape \[-2, 3\] is impossible"),
        (_changed(shape=[1 << 30, 1 << 30]), "is impossible"),
        (_changed(buffer=77), "its buffer 77 is not among the file's 1"),
        (_changed(type=5), "its element type has number 5"),
    ],
)
def test_contradictory_tensors(content, match):
    _refused(content, match)


def test_a_scale_with_which_a_fused_activation_exceeds_32_bits():
    tensors = [tensor("x", (2, 3), "int8", 0.1), tensor("y", (2, 3), "int8", 1e-45)]
    _refused(one("RELU6", tensors), r"node 'y' \(RELU6\): the scale of its result, 1.4013e-45, is too small")


def test_rows_that_no_memory_holds_are_not_listed():
    size = constant("s", np.array([4, 4], np.int32))
    tensors = [tensor("x", (1, 1 << 30, 4, 1), "int8", 0.1), size, tensor("y", (1, 4, 4, 1), "int8", 0.1)]
    assert import_model(one("RESIZE_NEAREST_NEIGHBOR", tensors, "ResizeNearestNeighborOptions"))


def test_a_constant_whose_buffer_does_not_fit_its_shape():
    weight = constant("w", np.ones((3, 4), np.int8), 0.1)
    weight.shape = [3, 5]
    tensors = [tensor("x", (1, 5), "int8", 0.1), weight, tensor("y", (1, 3), "int8", 0.5)]
    _refused(
        one("FULLY_CONNECTED", tensors), r"'w': its shape \[3, 5\] takes 15 bytes, but its buffer has 12"
    )


def test_operators_in_the_wrong_order_or_in_a_circle():
    tensors = [tensor(name, (2,), "int8", 0.1) for name in ("x", "a", "y")]
    unsorted = graph(tensors, [operator("RELU", [1], [2]), operator("RELU", [0], [1])], [0], [2])
    _refused(model(unsorted), r"node 'y' \(RELU\): it reads tensor 'a', to which nothing before it gives")
    circle = graph(tensors, [operator("ADD", [0, 2], [1]), operator("RELU", [1], [2])], [0], [2])
    _refused(model(circle), "it reads tensor 'y'")
    twice = graph(tensors, [operator("RELU", [0], [2]), operator("RELU", [0], [2])], [0], [2])
    _refused(model(twice), "it writes a tensor that has a value already")


def test_operands_that_do_not_fit():
    x, y = tensor("x", (2, 3), "int8", 0.1), tensor("y", (2, 3), "int8", 0.1)
    _refused(one("RELU", [y]), r"node 'y' \(RELU\): input 0 is missing")
    _refused(
        one("ADD", [x, tensor("r", (2, 4), "int8", 0.1), y], "AddOptions"), r"node 'y' \(ADD\): its operands"
    )
    _refused(one("CONV_2D", [x, x, y], "Conv2DOptions"), "input 0 has rank 2, not 4")
    shape = constant("s", np.array([4, 4], np.int32))
    _refused(one("RESHAPE", [x, shape, y]), r"6 elements do not fit a shape of \[4, 4\]")
    _refused(one("ADD", [x, x, y], "MulOptions"), "its options are of type")
