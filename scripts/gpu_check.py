"""On a machine with an NVIDIA GPU: every kernel of the dialect against the reference, models against the
CPU, and the time of an inference.

    scripts/gpu_check [model.onnx ...]

Exit code 1 if one bit differs, 5 without a GPU or nvcc.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import tvm_qat  # noqa: E402
from tests.kernels import fused_cases  # noqa: E402
from tests.kernels.cases import CASES  # noqa: E402
from tests.kernels.harness import Case, expected, module_of  # noqa: E402
from tvm_qat import kernels  # noqa: E402
from tvm_qat.errors import TvmQatError  # noqa: E402
from tvm_qat.ir import relax, tvm  # noqa: E402
from tvm_qat.package import build  # noqa: E402
from tvm_qat.package.cuda import check_nvcc, require_device  # noqa: E402
from tvm_qat.package.target import parse_target  # noqa: E402

DEMO = ROOT / "tvm_qat/data/demo/digits_cnn.onnx"


def main(models: list[str]) -> int:
    try:
        device = require_device()
        target = parse_target({"kind": "cuda", "arch": f"sm_{device.compute_version.replace('.', '')}"})
        check_nvcc(target)
        print(f"{device.device_name}, {target.attrs['arch']}")
        groups = {op: cases() for op, cases in CASES.items()}
        groups["fused"] = [*fused_cases.conv_cases(), *fused_cases.other_cases()]
        wrong = sum(check_cases(name, cases, device, target) for name, cases in groups.items())
        wrong += sum(check_model(Path(model), target) for model in models or [str(DEMO)])
    except TvmQatError as error:
        print(f"gpu_check: error: {error}", file=sys.stderr)
        return error.exit_code
    print("all bits are equal" if not wrong else f"{wrong} differ")
    return 1 if wrong else 0


def check_cases(name: str, cases: list[Case], device: object, target: object) -> int:
    """How many cases differ from the reference."""
    known = [one for one in cases if not one.symbolic]
    mod = module_of(known)
    lowered = kernels.finish(target)(kernels.lower(mod, target))
    machine = relax.VirtualMachine(build.executable_of(lowered, target), device)
    wrong = 0
    for i, one in enumerate(known):
        tensors = [tvm.runtime.tensor(np.array(x, order="C"), device) for x in one.inputs]
        have, want = machine[f"case{i}"](*tensors).numpy(), expected(mod, i, one)
        if not np.array_equal(have, want, equal_nan=want.dtype.kind == "f"):
            wrong += 1
            print(f"{name}: {one.name}: {np.count_nonzero(have != want)} of {want.size} elements differ")
    print(f"{name}: {len(known) - wrong} of {len(known)} cases have the reference's bits")
    return wrong


def check_model(model: Path, target: object) -> int:
    """How many outputs differ from those of this machine's CPU."""
    here, there = tvm_qat.compile(model, "native"), tvm_qat.compile(model, target)
    inputs = here.random_inputs()
    outputs = there.run(inputs)
    wrong = sum(outputs[name].tobytes() != want.tobytes() for name, want in here.run(inputs).items())
    times = there.benchmark(inputs, repeat=20, number=20, warm_up=5)
    print(f"{model.name}: {'differs' if wrong else 'the bits of the CPU'}, {times.median * 1e6:.1f} us")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
