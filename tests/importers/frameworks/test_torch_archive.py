"""Damaged and hostile .pt2 files: one line each, and nothing in them runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers import import_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def saved() -> bytes:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    dims = ({0: torch.export.Dim("n")},)
    program = torch.export.export(model, (torch.zeros(2, 1, 4, 4),), dynamic_shapes=dims)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def _rewritten(data: bytes, change: Callable[[str, bytes], bytes | None], extra: dict[str, bytes]) -> bytes:
    """The archive with records changed (None: left out) and added."""
    source, stream = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    root = source.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
        for name, content in extra.items():
            target.writestr(f"{root}/{name}", content)
    return stream.getvalue()


def _with_model(data: bytes, change: Callable[[Any], None]) -> bytes:
    def edit(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        model = json.loads(content)
        change(model)
        return json.dumps(model).encode()

    return _rewritten(data, edit, {})


def _refused(data: bytes, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        import_model(data, format="torch")
    assert "\n" not in str(caught.value)


def test_unchanged_archive_is_read(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "renamed.bin"
    path.write_bytes(_rewritten(saved, lambda _name, content: content, {}))
    assert "nn.conv2d" in import_model(path).script(show_meta=False)
    assert "nn.conv2d" in import_model(path, trust=True).script(show_meta=False)


def test_empty_truncated_and_foreign_files(saved: bytes) -> None:
    _refused(b"", "empty")
    _refused(saved[: len(saved) // 2], "truncated")
    _refused(b"PK\x03\x04" + b"\0" * 100, "truncated")
    _refused(_rewritten(saved, lambda n, c: None if n == "models/model.json" else c, {}), "no program")


def test_size_that_is_code_is_refused(saved: bytes, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def change(model: Any) -> None:
        text = json.dumps(model)
        start = text.index('"expr_str": "') + len('"expr_str": "')
        end = text.index('"', start)
        new = text[:start] + code.replace('"', "'") + text[end:]
        model.clear()
        model.update(json.loads(new))

    _refused(_with_model(saved, change), r"writes a size as .*--trust")
    assert not mark.exists()


def test_call_of_something_else_than_an_operator_is_refused(saved: bytes) -> None:
    def change(model: Any) -> None:
        model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.load"

    _refused(_with_model(saved, change), r"calls 'torch.load'.*--trust")


def test_foreign_type_in_the_tree_of_inputs_is_refused(saved: bytes) -> None:
    def change(model: Any) -> None:
        signature = model["graph_module"]["module_call_graph"][0]["signature"]
        tree = signature["in_spec"]
        signature["in_spec"] = tree.replace("builtins.dict", "collections.defaultdict")

    _refused(_with_model(saved, change), r"defaultdict.*--trust")


class _Runs:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_pickles_are_not_run(saved: bytes, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    stream = io.BytesIO()
    torch.save((_Runs(str(mark)),), stream)
    hostile = stream.getvalue()
    inputs = "data/sample_inputs/model.pt"
    _refused(_rewritten(saved, lambda n, c: hostile if n == inputs else c, {}), "example inputs are more")

    config = "data/weights/model_weights_config.json"
    pickled = _rewritten(
        saved,
        lambda n, c: c.replace(b'"use_pickle": false', b'"use_pickle": true') if n == config else c,
        {},
    )
    _refused(pickled, "is pickled.*--trust")
    assert not mark.exists()


def test_compiled_libraries_are_not_loaded(saved: bytes) -> None:
    library = {"data/aotinductor/model/model.so": b"\x7fELF"}
    _refused(_rewritten(saved, lambda _n, c: c, library), r"aotinductor.*may be code")


def test_tensor_larger_than_its_data_is_refused(saved: bytes) -> None:
    config = "data/weights/model_weights_config.json"

    def change(name: str, content: bytes) -> bytes:
        return content.replace(b'{"as_int": 2}', b'{"as_int": 2000000000}') if name == config else content

    _refused(_rewritten(saved, change, {}), "larger than its data")


def test_what_torch_logs_is_the_reason(saved: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    def change(model: Any) -> None:
        outputs = model["graph_module"]["graph"]["tensor_values"]
        next(iter(outputs.values()))["sizes"][0] = {"as_int": -3}

    _refused(_with_model(saved, change), "cannot load it: .*negative dimension -3")
    assert capfd.readouterr() == ("", "")


def test_a_signature_that_contradicts_the_graph_is_refused(saved: bytes) -> None:
    def change(model: Any) -> None:
        model["graph_module"]["signature"]["output_specs"].pop()

    _refused(_with_model(saved, change), "cannot load it: ")


def test_missing_tensor_is_refused(saved: bytes) -> None:
    _refused(_rewritten(saved, lambda n, c: None if n == "data/weights/weight_0" else c, {}), "is missing")


def test_all_unknown_operators_are_listed() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.det(torch.erfinv(torch.relu(torch.lgamma(x))))

    listed = r"aten\.erfinv \('erfinv'\), aten\.lgamma \('lgamma'\), aten\.linalg_det \('linalg_det'\);"
    with pytest.raises(UnsupportedError, match=f"operators without a translation: {listed}"):
        import_model(torch.export.export(Odd(), (torch.zeros(3, 3),)))


def test_writing_into_shared_memory_is_refused() -> None:
    class Shared(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + 1
            view = x.view(-1)
            x.mul_(2)
            return view

    with pytest.raises(UnsupportedError, match="'view' shares memory"):
        import_model(torch.export.export(Shared(), (torch.zeros(2, 2),)))


def test_in_place_operators_change_what_later_calls_read() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y.add_(1)
            return y - 3

    from tvm_qat.verification.evaluate import evaluate_module

    mod = import_model(torch.export.export(InPlace(), (torch.zeros(2, 2),)))
    assert evaluate_module(mod, [torch.ones(2, 2).numpy()])[0].tolist() == [[0, 0], [0, 0]]


def test_shapes_that_contradict_the_program_are_refused(saved: bytes) -> None:
    for shapes, match in (
        ({"y": [1]}, "no input 'y'"),
        ({"input": [1, 1, 4]}, "rank 4"),
        ({"input": [1, 1, 5, 4]}, "contradicts"),
    ):
        with pytest.raises(InputError, match=match):
            import_model(saved, input_shapes=shapes)
