"""Runs a package with TVM's runtime libraries alone: neither TVM's Python code nor its compiler is loaded.

    python run_package.py model.tar inputs.npz outputs.npz

Arrays go by the model's own names. Needs numpy, apache-tvm-ffi, and libtvm_runtime.so: beside this file
(taken from apache-tvm's wheel), or in an installed apache-tvm; libtvm_runtime_extra.so as well where a
model sorts (TopK). A package for a GPU also needs
libtvm_runtime_cuda.so from the same place, CUDA's libcudart.so.13 (on the system, or pip install
nvidia-cuda-runtime) and a driver for CUDA 13; exit code 5 where one of them is missing. The package is
not checked: tvm_qat.load does that.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

_POOLED = 2
_EXIST = 0
"""The first attribute of a device: whether it is there."""

_CUDA_PARTS = (
    ("libcuda.so.1", "this machine has no NVIDIA driver"),
    ("libcudart.so.13", "CUDA's runtime library was not found (pip install nvidia-cuda-runtime)"),
    ("libtvm_runtime_cuda.so", "the CUDA part of TVM's runtime was not found (it is in apache-tvm's wheel)"),
)
"""Each needs those before it."""


class Missing(Exception):
    """What a package needs is not on this machine."""


def start(kind: str, folders: Sequence[Path] = ()) -> Any:
    """The first device of this kind, cpu or cuda, with its libraries loaded; `folders` are searched first."""
    _library(
        "libtvm_runtime.so", "TVM's runtime library was not found (it is in apache-tvm's wheel)", folders
    )
    if _place("libtvm_runtime_extra.so", folders).is_absolute():
        _library("libtvm_runtime_extra.so", "what models that sort call cannot be loaded", folders)
    if kind == "cuda":
        for name, reason in _CUDA_PARTS:
            _library(name, reason, folders)
    device = tvm_ffi.device(f"{kind}:0")
    if not attribute(device, _EXIST):
        raise Missing("the NVIDIA driver finds no GPU")
    return device


def attribute(device: Any, number: int) -> Any:
    """What TVM's runtime knows of a device, by its numbers of attributes."""
    return _function("GetDeviceAttr")(device.dlpack_device_type(), device.index, number)


def executable(library: str | Path, device: Any) -> Any:
    """The functions of a package's mod.so, e.g. `main`, which take and give tensors on the device."""
    machine = tvm_ffi.load_module(str(library))["vm_load_executable"]()
    kinds = dict.fromkeys([device.dlpack_device_type(), tvm_ffi.device("cpu:0").dlpack_device_type()])
    machine["vm_initialization"](*(number for kind in kinds for number in (kind, 0, _POOLED)))
    return machine


def to_device(array: np.ndarray, device: Any) -> Any:
    array = np.require(array, requirements="C")
    tensor = _function("TVMTensorAllocWithScope")(array.shape, tvm_ffi.dtype(str(array.dtype)), device, None)
    _function("TVMTensorCopyFromBytes")(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
    return tensor


def to_host(tensor: Any) -> np.ndarray:
    array = np.empty(tuple(tensor.shape), str(tensor.dtype))
    _function("TVMTensorCopyToBytes")(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
    return array


def parts_of(result: Any) -> list[Any]:
    """What a function gave, as a list of tensors."""
    return [result] if hasattr(result, "__dlpack__") else list(result)


def wait(device: Any) -> None:
    """Until all is done that was begun on the device."""
    _function("Device_StreamSync")(device, 0)


def run(package: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(package) as tar:
            description: dict[str, Any] = json.loads(_member(tar, "meta.json"))
            Path(folder, "mod.so").write_bytes(_member(tar, "mod.so"))
        device = start("cuda" if description["target"].get("kind") == "cuda" else "cpu")
        main = executable(Path(folder, "mod.so"), device)["main"]
    result = main(*(to_device(inputs[info["name"]], device) for info in description["inputs"]))
    outputs = map(to_host, parts_of(result))
    return {info["name"]: output for info, output in zip(description["outputs"], outputs, strict=True)}


def _function(name: str) -> Any:
    return tvm_ffi.get_global_func(f"runtime.{name}")


def _library(name: str, reason: str, folders: Sequence[Path]) -> None:
    """Load a library; those that need it find it by its name afterwards."""
    try:
        ctypes.CDLL(str(_place(name, folders)), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise Missing(f"{reason}: {error}") from None


def _place(name: str, folders: Sequence[Path]) -> Path:
    """The library's file; its mere name where only the system may know it."""
    files = [folder.resolve() / name for folder in (*folders, Path(__file__).parent, *_installed())]
    return next(filter(Path.exists, files), Path(name))


def _installed() -> list[Path]:
    """Where pip puts the libraries of TVM and of CUDA."""
    homes = {name: util.find_spec(name) for name in ("tvm", "nvidia")}
    places = [
        Path(place) for spec in homes.values() if spec for place in spec.submodule_search_locations or ()
    ]
    return [place / folder for place in places for folder in ("lib", "cu13/lib")]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def main() -> int:
    try:
        with np.load(sys.argv[2]) as given:
            made = run(sys.argv[1], dict(given))
    except Missing as error:
        print(f"run_package: {error}", file=sys.stderr)
        return 5
    np.savez(sys.argv[3], **made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
