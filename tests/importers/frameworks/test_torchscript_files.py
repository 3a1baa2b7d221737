"""What `.pt` and `.pth` files hold, and what is refused before any of it runs."""

from __future__ import annotations

import collections
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from tests.importers.frameworks.torchscript_nets import quiet
from tvm_qat.errors import InputError
from tvm_qat.importers import import_model
from tvm_qat.ir import IRModule

SHAPES = {"x": (1, 4)}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return torch.relu(self.fc(x))


class Writes(nn.Module):
    def forward(self, x):
        torch.save(x, "written")
        return x


@pytest.fixture
def archive(tmp_path):
    with quiet():
        torch.jit.save(torch.jit.script(Net()), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_found_by_suffix_by_content_and_by_type(archive, tmp_path):
    for name in ("net.pth", "NET.PT", "without_suffix", "net.bin"):
        (tmp_path / name).write_bytes(archive.read_bytes())
        assert isinstance(import_model(tmp_path / name, input_shapes=SHAPES), IRModule)
    assert isinstance(import_model(archive.read_bytes(), input_shapes=SHAPES), IRModule)
    with quiet():
        assert isinstance(import_model(torch.jit.load(archive), input_shapes=SHAPES), IRModule)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "does not store the shape of input 'x'; give input_shapes"),
        ({"y": (1, 4)}, "has no input 'y'; it has 'x'"),
    ],
)
def test_shapes_of_inputs_are_needed(archive, shapes, message):
    with pytest.raises(InputError, match=message):
        import_model(archive, input_shapes=shapes)


def test_parameters_alone_are_refused(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: holds parameters only \(a state_dict\)"):
        import_model(tmp_path / "weights.pth")


def test_pickled_modules_need_trust(tmp_path):
    torch.save(Net(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"would run code that the file names.*--trust"):
        import_model(tmp_path / "net.pt", input_shapes=SHAPES)


def test_a_pickle_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save(collections.OrderedDict(weight=Evil()), tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(InputError, match=name):
            import_model(tmp_path / name)
    assert not (tmp_path / "written").exists()


def test_code_that_reaches_outside_needs_trust(tmp_path):
    with quiet():
        torch.jit.save(torch.jit.script(Writes()), tmp_path / "net.pt")
    with pytest.raises(InputError, match="uses 'save', which may do more than compute"):
        import_model(tmp_path / "net.pt", input_shapes=SHAPES)


@pytest.mark.parametrize("trust", [False, True])
def test_a_string_longer_than_the_file_takes_no_memory(archive, tmp_path, trust):
    target = tmp_path / "long.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as changed:
        for name in source.namelist():
            content = source.read(name)
            changed.writestr(name, content.replace(b"X\x06\0\0\0weight", b"X\xff\xff\xff\xffweight"))
    with pytest.raises(InputError, match=r"long\.pt: is damaged: data\.pkl: expected 4294967295 bytes"):
        import_model(target, input_shapes=SHAPES, trust=trust)


@pytest.mark.parametrize(
    "text", ["ops.c10d.broadcast(x)", "torch.classes.dist_rpc.WorkerInfo", "torch.from_file(name)"]
)
def test_operators_of_other_libraries_need_trust(archive, tmp_path, text):
    target = tmp_path / "other.pt"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as changed:
        for name in source.namelist():
            content = source.read(name)
            changed.writestr(name, content + b"# " + text.encode() if name.endswith(".py") else content)
    with pytest.raises(InputError, match="may do more than compute"):
        import_model(target, input_shapes=SHAPES)


DIRECTORY, LOCATOR = b"PK\x01\x02", b"PK\x06\x07"


@pytest.mark.parametrize(
    ("record", "offset", "value"),
    [(DIRECTORY, 6, 188), (DIRECTORY, 8, 1), (DIRECTORY, 10, 99), (LOCATOR, 16, 2)],
    ids=["version of zip", "encrypted", "compression", "several disks"],
)
def test_archives_that_ask_for_what_zip_cannot_do_are_refused(archive, tmp_path, record, offset, value):
    content = bytearray(archive.read_bytes())
    start = content.find(record)
    while start >= 0:
        content[start + offset] = value
        start = content.find(record, start + 1)
    path = tmp_path / "changed.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        import_model(path, input_shapes=SHAPES)


def test_damaged_archives_are_refused_in_one_line(archive, tmp_path):
    content = archive.read_bytes()
    generator = random.Random(0)
    broken = [content[: len(content) * part // 20] for part in range(1, 20)]
    for _ in range(100):
        changed = bytearray(content)
        for _ in range(3):
            changed[generator.randrange(len(content))] = generator.randrange(256)
        broken.append(bytes(changed))
    messages = []
    for number, data in enumerate(broken):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(data)
        try:
            import_model(path, input_shapes=SHAPES)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 19
    assert not any("\n" in message for message in messages)
