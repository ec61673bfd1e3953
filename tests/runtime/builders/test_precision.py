"""The data type for computing: what `--use_amp` means on CPUs of different kinds."""

import platform

import pytest

from convoy.model import native
from convoy.runtime.builders.precision import precision
from convoy.runtime.settings.config import Config
from convoy.utils.machine import device

AVX2, AVX512, AMX = "avx2", "avx2 avx512bw avx512_bf16", "avx2 avx512bw amx_bf16"


@pytest.mark.parametrize(
    ("flags", "arch", "use_xla", "built", "policy", "reason"),
    [
        (AVX2, "resnet50", False, True, "float32", "no instructions"),
        ("avx2 avx512bw", "resnet50", False, True, "float32", "no instructions"),
        (AVX512, "resnet50", True, False, "mixed_bfloat16", "multiplies it"),
        (AMX, "efficientnet-b0", False, True, "mixed_bfloat16", "multiplies it"),
        (AMX, "efficientnet-b0", False, False, "float32", "are not built here"),
        (AVX512, "efficientnet-b4", True, True, "float32", "--use_xla leaves out"),
        (None, "efficientnet-b0", False, True, "mixed_bfloat16", "no step was measured"),
    ],
)
def test_use_amp_on_a_cpu_follows_the_measurements(
    monkeypatch, tmp_path, flags, arch, use_xla, built, policy, reason
):
    monkeypatch.setattr(device, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64" if flags else "aarch64")
    device.CPUS.write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(native.LIBRARY, "load", lambda: (object() if built else None, ""))
    found = precision(Config(arch=arch, use_amp=True, use_xla=use_xla))
    assert found.policy == policy
    assert reason in found.reason


@pytest.mark.parametrize("mode", ["eval", "predict", "inference_benchmark"])
def test_inference_needs_no_operations_of_ours_for_bfloat16(monkeypatch, tmp_path, mode):
    monkeypatch.setattr(device, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    device.CPUS.write_text(f"flags\t\t: {AVX512}\n")
    monkeypatch.setattr(native.LIBRARY, "load", lambda: (None, "not built"))
    config = Config(arch="efficientnet-b0", use_amp=True, mode=mode)
    assert precision(config).policy == "mixed_bfloat16"
    assert precision(config.with_(use_xla=True)).policy == "float32"
    device.CPUS.write_text(f"flags\t\t: {AVX2}\n")
    assert precision(config).policy == "float32"


def test_dtype_overrides_use_amp():
    for use_amp in (False, True):
        config = Config(dtype="bf16", use_amp=use_amp)
        assert precision(config) == ("mixed_bfloat16", "")
    assert precision(Config()) == ("float32", "")
