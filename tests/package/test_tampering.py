"""Whatever is done to a package: one line, our exception, and nothing of it is loaded."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tvm_qat.errors import PackageError
from tvm_qat.package import Package, container, load, meta
from tvm_qat.package.details import Details

Members = dict[str, bytes]


def refusal(path: Path) -> str:
    with pytest.raises(PackageError) as caught:
        load(path)
    line = str(caught.value)
    assert caught.value.exit_code == 4
    assert line.startswith(str(path)) and "\n" not in line
    return line


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def plain(members: Members) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo(name), data) for name, data in members.items()]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def redescribed(members: Members, change: Callable[[dict[str, object]], object]) -> bytes:
    """The package with another description whose digest is right again."""
    document = json.loads(members["meta.json"])
    document.pop("digest")
    change(document)
    document["digest"] = meta._digest(document)
    return container.to_tar({**members, "meta.json": meta._canonical(document)})


@pytest.fixture
def members(saved: Path) -> Members:
    return {name: member.read() for name, member in container.from_file(saved).items()}


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_package_is_refused(saved: Path, tmp_path: Path, part: float):
    raw = saved.read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(raw[: int(part * len(raw))])
    refusal(path)


def test_every_flipped_byte_is_seen(saved: Path, tmp_path: Path):
    raw = saved.read_bytes()
    path = tmp_path / "flipped.tar"
    for place in {*range(0, len(raw), 311), *range(0, 1600, 7), len(raw) - 1}:
        changed = bytearray(raw)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        refusal(path)


@pytest.mark.parametrize("name", ["meta.json", "layers.json", "mod.so"])
def test_a_flipped_byte_in_a_member_is_named(members: Members, tmp_path: Path, name: str):
    changed = bytearray(members[name])
    changed[len(changed) // 2] ^= 1
    path = tmp_path / "flipped.tar"
    path.write_bytes(container.to_tar({**members, name: bytes(changed)}))
    assert name in refusal(path) or "malformed" in refusal(path)


@pytest.mark.parametrize(
    "extra",
    [
        (tarfile.TarInfo("extra.so"), b"x"),
        (tarfile.TarInfo("/etc/passwd"), b"x"),
        (tarfile.TarInfo("../outside"), b"x"),
        (tarfile.TarInfo("./mod.so"), b"x"),
        (tarfile.TarInfo("mod.so"), b"x"),
        link("mod.ll", "/etc/passwd"),
        link("mod.vm", "mod.so", tarfile.LNKTYPE),
        link("lib0.o", "", tarfile.FIFOTYPE),
        link("devc.o", "", tarfile.DIRTYPE),
    ],
    ids=lambda entry: f"{entry[0].name}-{entry[0].type.decode()}",
)
def test_members_that_no_package_has_are_refused(
    members: Members, tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes]
):
    path = tmp_path / "extra.tar"
    path.write_bytes(tar_of(*plain(members), extra))
    refusal(path)
    assert not (tmp_path.parent / "outside").exists()


def test_bytes_behind_the_end_are_refused(saved: Path, tmp_path: Path):
    path = tmp_path / "longer.tar"
    path.write_bytes(saved.read_bytes() + b"x" * 512)
    assert "altered" in refusal(path)


@pytest.mark.parametrize("missing", ["meta.json", "layers.json", "mod.so"])
def test_a_missing_member_is_refused(members: Members, tmp_path: Path, missing: str):
    path = tmp_path / "less.tar"
    path.write_bytes(container.to_tar({k: v for k, v in members.items() if k != missing}))
    assert missing in refusal(path)


def test_another_schema_is_refused(members: Members, tmp_path: Path):
    path = tmp_path / "schema.tar"
    path.write_bytes(redescribed(members, lambda document: document.update(schema=1)))
    assert "schema 1" in refusal(path)


@pytest.mark.parametrize(
    ("platform", "reason"),
    [
        ({"triple": "aarch64-linux-gnu", "features": ["neon"]}, "was compiled for aarch64-linux-gnu"),
        ({"triple": None, "features": ["avx99"]}, "lacks: avx99"),
    ],
)
def test_code_for_another_machine_is_refused(
    members: Members, tmp_path: Path, platform: dict[str, object], reason: str
):
    def change(document: dict[str, object]) -> None:
        document["platform"].update({key: value for key, value in platform.items() if value})

    path = tmp_path / "foreign.tar"
    path.write_bytes(redescribed(members, change))
    assert reason in refusal(path)


def test_another_version_of_tvm_is_refused(members: Members, tmp_path: Path):
    path = tmp_path / "version.tar"
    path.write_bytes(redescribed(members, lambda document: document["versions"].update(tvm="0.26.0")))
    assert "apache-tvm 0.26.0" in refusal(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("inputs"),
        lambda document: document.update(inputs={}),
        lambda document: document.update(platform=[]),
        lambda document: document["inputs"][0].update(dtype="nonsense"),
        lambda document: document["inputs"][0].update(shape=[-1]),
        lambda document: document["inputs"][0].update(qparams={"scale": 0.0, "zero_point": 0}),
        lambda document: document["members"].update({"mod.so": 7}),
        lambda document: document.update(members=None),
        lambda document: document.update(schedule={}),
        lambda document: document.update(schedule={"buffers": [[[-1], "uint8"]], "steps": []}),
        lambda document: document.update(schedule={"buffers": [], "steps": [1]}),
    ],
)
def test_a_malformed_description_is_refused(
    members: Members, tmp_path: Path, change: Callable[[dict[str, object]], object]
):
    path = tmp_path / "malformed.tar"
    path.write_bytes(redescribed(members, change))
    refusal(path)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 10240, b"ustar" * 300, b"\x1f\x8b\x08" + b"\0" * 600])
def test_what_is_no_tar_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "none.tar"
    path.write_bytes(content)
    refusal(path)


def test_code_that_was_altered_after_it_was_checked_is_not_run(saved: Path, tmp_path: Path):
    path = tmp_path / "changing.tar"
    raw = bytearray(saved.read_bytes())
    path.write_bytes(raw)
    loaded = load(path)
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(PackageError, match="altered or replaced after it was loaded"):
        loaded.run(loaded.random_inputs())


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path):
    refusal(tmp_path)
    refusal(tmp_path / "missing.tar")


def test_code_that_is_no_library_is_refused_when_it_is_run(package: Package, tmp_path: Path):
    code = {"layers.json": Details([], []).to_bytes(), "mod.so": b"not a library"}
    (tmp_path / "broken.tar").write_bytes(
        container.to_tar({"meta.json": meta.to_bytes(package.meta, code), **code})
    )
    broken = load(tmp_path / "broken.tar")
    with pytest.raises(PackageError, match=r"broken\.tar: cannot be loaded"):
        broken.run(broken.random_inputs())
