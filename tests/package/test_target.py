from __future__ import annotations

import pytest

from tvm_qat.errors import InputError, PackageError
from tvm_qat.package.target import (
    Platform,
    check_runnable,
    host_features,
    host_platform,
    parse_target,
    platform_of,
    target_json,
)


@pytest.mark.parametrize(
    ("written", "cpu"),
    [
        ("llvm", None),
        ("llvm -mcpu=cascadelake", "cascadelake"),
        ('{"kind": "llvm", "mcpu": "x86-64-v3"}', "x86-64-v3"),
        ({"kind": "llvm", "mcpu": "x86-64-v4"}, "x86-64-v4"),
        ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}, "cortex-a72"),
    ],
)
def test_all_spellings_of_a_target_are_read(written: object, cpu: str | None):
    assert target_json(parse_target(written)).get("mcpu") == cpu


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("nonsense", "nonsense"),
        ("llvm -mcpu=pentium99", "mcpu pentium99 is unknown"),
        ("llvm mcpu=x", "not of the form|Cannot parse|not defined"),
        ('{"kind": ', "Expecting value|JSON"),
        ("{}", "kind"),
        ({"kind": "llvm", "colour": "red"}, "colour"),
        ({"kind": "llvm", "mtriple": "nowhere-none"}, "unknown to LLVM"),
        ("vulkan", "kind vulkan"),
        ("cuda", "need an arch of sm_61 or later"),
        ("", "''"),
        (7, "7"),
    ],
)
def test_a_wrong_target_is_refused_in_one_line(written: object, reason: str):
    with pytest.raises(InputError, match=reason) as caught:
        parse_target(written)
    assert "\n" not in str(caught.value)


def test_native_code_runs_here():
    platform = platform_of(parse_target("native"))
    assert set(platform.features) <= host_features()
    check_runnable(platform, "package")


def test_only_features_that_code_uses_are_asked_for():
    features = platform_of(parse_target("llvm -mcpu=cascadelake")).features
    assert "avx512vnni" in features
    assert "fast-gather" not in features and "pku" not in features


def test_code_for_another_system_does_not_run_here():
    host = host_platform()
    other = "darwin" if host.system != "darwin" else "linux"
    with pytest.raises(PackageError, match="was compiled for"):
        check_runnable(Platform(f"{host.arch}-vendor-{other}", ()), "package")
