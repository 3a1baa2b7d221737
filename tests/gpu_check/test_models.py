"""The benchmark's networks: repeated weights, and any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from on_gpu import __main__ as gpu_check
from on_gpu import models, work
from on_gpu.make import gemm
from on_gpu.parts import Description, array_of, store
from onnx import numpy_helper

from tests.support.batched_net import attention_like
from tvm_qat.errors import MissingDependencyError
from tvm_qat.package.target import parse_target


def test_large_weights_repeat_along_their_channels_and_nothing_else_changes() -> None:
    proto = attention_like()
    before = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    models.repeat_weights(proto)
    after = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    np.testing.assert_array_equal(after["w"], before["w"][:, np.arange(300) % 61])
    assert len(np.unique(after["w"], axis=1).T) == 61
    assert all(np.array_equal(before[name], after[name]) for name in before if name != "w")


def test_a_batch_gives_what_its_items_give_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(attention_like(), file)
    part, library, arrays = models.batched("net", file, 3, parse_target("native"))
    assert part.cases[0].inputs[0].shape == (3, 4, 300) and part.peer == (3,)
    assert arrays["0.out0"].shape == (3, 4, 3, 100)
    assert len({row.tobytes() for row in arrays["0.out0"]}) == 3
    store(tmp_path, part, library, arrays)
    Description("cpu", "cpu", {}, (part,)).write(tmp_path)
    assert [found["wrong"] for found in work.work(tmp_path, part.name, 0, 0) if "wrong" in found] == [0]
    assert len((tmp_path / "net-b3.so.xz").read_bytes()) < len(library) / 3


def test_a_product_of_few_rows_stands_for_the_whole() -> None:
    part, _, arrays = gemm((80, 70, 32), parse_target("native"))
    given = array_of(part.cases[0].inputs[0])
    assert given.shape == (80, 32) and np.array_equal(given[67:], given[:13])
    assert arrays["0.out0"].shape == (67, 61) and part.macs == 80 * 70 * 32


def test_networks_without_a_file_are_named(tmp_path: Path) -> None:
    assert models.missing(["kernels", "gemm"], tmp_path) == []
    assert models.missing(["bert-b32", "resnet50"], tmp_path) == ["resnet50", "bert"]
    assert models.missing([], tmp_path) == list(models.NETWORKS)
    for name in models.NETWORKS:
        models.file_of(name, tmp_path).touch()
    assert models.missing([], tmp_path) == []


def test_a_network_that_was_not_made_is_no_riddle(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="scripts/bench resnet50 makes it"):
        models.batched("resnet50", tmp_path / "none.onnx", 1, parse_target("native"))


def test_what_is_missing_is_said_as_the_generator_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--missing", "--arch", "cpu", "--models", str(tmp_path), "--only"]
    assert gpu_check.main([*words, "resnet50,bert"]) == 0
    assert capsys.readouterr().out == f"--out={tmp_path}\nresnet50\nbert\n"
    assert gpu_check.main([*words, "gemm"]) == 0
    assert capsys.readouterr().out == ""
