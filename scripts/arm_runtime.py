"""Called by scripts/setup_arm: fills a folder with what runs packages for aarch64 on this machine.

    run_package    examples/cpp/run_package.cc, compiled for aarch64
    lib/           TVM's runtime libraries for aarch64, of the versions installed here

The emulator itself is `qemu-aarch64-static`; the C library is that of the cross compiler.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

TRIPLE = "aarch64-linux-gnu"
TOOLS = {
    "qemu-aarch64-static": "qemu-user-static",
    f"{TRIPLE}-g++": f"g++-{TRIPLE}",
    f"{TRIPLE}-gcc": f"gcc-{TRIPLE}",
    f"{TRIPLE}-objdump": f"binutils-{TRIPLE}",
}
"""Commands, and Debian's packages that hold them."""

LIBRARIES = ("tvm_runtime_extra", "tvm_runtime", "tvm_ffi")
HOST = Path(__file__).resolve().parents[1] / "examples" / "cpp" / "run_package.cc"
PLATFORMS = [
    f"--platform={name}"
    for name in ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
]


def main(folder: Path) -> int:
    wheels = [f"{name}=={metadata.version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")]
    sources = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (HOST, Path(__file__)))
    stamp, wanted = folder / "made_of", "\n".join([*wheels, *sources])
    if not _has_tools():
        return 1
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    _say(f"setting up {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lib").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        _fetch(wheels, Path(temporary), folder / "lib")
        _build_host(Path(temporary) / "tvm_ffi" / "include", folder)
    stamp.write_text(wanted)
    return 0


def _has_tools() -> bool:
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if not missing:
        return True
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        _say(f"some tools are missing; as root, run: {' '.join(command)}")
        return False
    _say(f"installing {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    steps = (["apt-get", "update", "-q"], command)
    return all(subprocess.run(step, env=environment, stdout=sys.stderr).returncode == 0 for step in steps)


def _fetch(wheels: list[str], work: Path, lib: Path) -> None:
    """The wheels' libraries to `lib`, their headers to `work`."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--only-binary=:all:", *PLATFORMS, f"--python-version={version}", "-d", str(work)]
    subprocess.run([*pip, *options, *wheels], check=True)
    for wheel in work.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name in {f"lib{library}.so" for library in LIBRARIES}:
                    (lib / Path(name).name).write_bytes(archive.read(name))
                elif name.startswith("tvm_ffi/include/") and not name.endswith("/"):
                    archive.extract(name, work)


def _build_host(headers: Path, folder: Path) -> None:
    libraries = [f"-L{folder / 'lib'}", "-Wl,--no-as-needed", *(f"-l{name}" for name in LIBRARIES)]
    paths = ["-Wl,-rpath,$ORIGIN/lib", f"-Wl,-rpath-link,{folder / 'lib'}"]
    compiler = [f"{TRIPLE}-g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    output = ["-isystem", str(headers), "-o", str(folder / "run_package")]
    subprocess.run([*compiler, str(HOST), *output, *libraries, *paths], check=True)


def _say(text: str) -> None:
    print(f"tvm-qat: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
