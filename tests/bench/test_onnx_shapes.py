from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.cli.conftest import DEMO
from tvm_qat.bench.onnx_shapes import with_shapes
from tvm_qat.errors import InputError


def test_without_shapes_the_file_itself_is_used(tmp_path: Path):
    assert with_shapes(str(DEMO / "digits_cnn.onnx"), {}, tmp_path / "m.onnx") == str(
        DEMO / "digits_cnn.onnx"
    )
    assert not (tmp_path / "m.onnx").exists()


def test_other_runtimes_run_the_batch_that_was_asked_for(tmp_path: Path):
    made = with_shapes(str(DEMO / "digits_cnn.onnx"), {"image": [3, 1, 16, 16]}, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": np.zeros((3, 1, 16, 16), np.float32)})
    assert result.shape == (3, 10)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [({"x": [1]}, "has no input 'x'"), ({"image": [1, 16]}, "input 'image' has 4 dimensions")],
)
def test_shapes_that_fit_no_input_are_refused(shapes: dict[str, list[int]], reason: str, tmp_path: Path):
    with pytest.raises(InputError, match=reason):
        with_shapes(str(DEMO / "digits_cnn.onnx"), shapes, tmp_path / "m.onnx")
