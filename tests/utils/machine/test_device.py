"""TensorFlow's settings before it loads, and warnings about the processor."""

import logging
import os
import platform
import subprocess
import sys

import pytest

from convoy.utils.machine import device

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "found"), [(None, "1"), ("0", "0")])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 has the switch")
def test_onednn_is_on_unless_the_environment_turns_it_off(asked, found):
    environment = {key: value for key, value in os.environ.items() if key != ONEDNN}
    script = (
        "import os; from convoy.runtime.runner import Runner\n"
        "from convoy.runtime.settings.config import Config\n"
        "Runner(Config(mode='env')).run()\n"
        "from tensorflow.python.util import _pywrap_util_port as port\n"
        f"print('found', os.environ['{ONEDNN}'], int(port.IsMklEnabled()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | ({ONEDNN: asked} if asked else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"found {found} {found}"


@pytest.mark.parametrize(
    ("policy", "flags", "machine", "warns"),
    [
        ("mixed_bfloat16", "avx2 fma", "x86_64", True),
        ("mixed_bfloat16", "avx2 avx512bw", "x86_64", False),
        ("float32", "avx2 fma", "x86_64", False),
        ("mixed_bfloat16", "asimd bf16", "aarch64", False),
    ],
)
def test_slow_bfloat16_causes_a_warning(
    monkeypatch, caplog, tmp_path, policy, flags, machine, warns
):
    monkeypatch.setattr(device, "CPUS", tmp_path / "cpuinfo")
    device.CPUS.write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    # A separate logger, because earlier tests may change the program's own.
    monkeypatch.setattr(device, "logger", logging.getLogger("tests.device"))
    device.warn_of_slow_bfloat16(policy)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns


def test_startup_lines_of_libraries_are_removed_and_others_kept(capfd):
    with device.without_start_up_lines():
        os.write(
            2,
            b"W0000 00:00:1717171717.17 1 tf_tfl.cc:365] Ignored output_format.\nerror: x\n"
            b"fully_quantize: 0, inference_type: 6, input_inference_type: UINT8\n",
        )
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\nlast")
    os.write(2, b" after\n")
    assert capfd.readouterr().err == "error: x\nlast after\n"


HOPPER, BLACKWELL = (9, 0), (12, 0)


@pytest.mark.parametrize(
    ("capability", "version", "use_xla", "says"),
    [
        (HOPPER, "2.18.1", True, None),
        (HOPPER, "2.21.0", True, None),
        (BLACKWELL, "2.20.0", False, "install TensorFlow 2.21"),
        (BLACKWELL, "2.21.0", False, None),
        (BLACKWELL, "2.21.0", True, "leave out --use_xla"),
        (BLACKWELL, "2.22.0-rc0", True, None),
    ],
)
def test_a_gpu_that_is_too_new_for_tensorflow_is_refused(capability, version, use_xla, says):
    if says is None:
        device.check_gpu("a GPU", capability, version, use_xla)
        return
    with pytest.raises(device.DeviceError, match=says):
        device.check_gpu("a GPU", capability, version, use_xla)


def test_a_processor_without_avx_is_refused_before_tensorflow_ends_the_process(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(device, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    device.CPUS.write_text("flags\t\t: fpu sse4_2 avx f16c\n")
    device.check_interpreter()
    device.CPUS.write_text("flags\t\t: fpu sse4_2 aes\n")
    with pytest.raises(device.DeviceError, match="AVX"):
        device.check_interpreter()


def test_importing_tensorflow_prints_nothing_and_turns_onednn_on():
    """TensorFlow 2.21 prints two lines whatever TF_CPP_MIN_LOG_LEVEL says."""
    script = (
        "from convoy.utils.machine import device\n"
        "device.quiet(); device.prefer_onednn(); device.import_tensorflow()\n"
        "from tensorflow.python.util import _pywrap_util_port as port\n"
        "print(int(port.IsMklEnabled()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ("1\n" if platform.machine() == "x86_64" else "0\n")


def test_python_prints_at_once_while_startup_lines_are_removed(capfd):
    with device.without_start_up_lines():
        print("from Python", file=sys.stderr)
        os.write(2, b"from C++\n")
    assert capfd.readouterr().err == "from Python\nfrom C++\n"


VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.85.12  Sat Jan 28\nGCC version: 12\n"


@pytest.mark.parametrize(
    ("cuda", "driver", "visible", "says"),
    [
        (True, None, "0", None),
        (True, "470", "", None),
        (False, "535", "0", "`make setup` here installs it for GPUs"),
        (True, "470", "0", "driver 470 is too old for TensorFlow's CUDA 12: install 525 or newer"),
        (True, "535", "0", "--verbose shows its reasons"),
    ],
)
def test_a_machine_with_a_driver_is_told_why_it_computes_on_the_cpu(
    monkeypatch, tmp_path, cuda, driver, visible, says
):
    import tensorflow as tf

    monkeypatch.setattr(device, "DRIVER", tmp_path / "version")
    if driver:
        device.DRIVER.write_text(VERSION.format(driver))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_cuda_build": cuda})
    found = device.why_no_gpu()
    assert (found is None) is (says is None)
    if says:
        assert says in found


def test_the_driver_gets_a_folder_for_compiled_kernels_unless_the_user_named_one(
    monkeypatch, tmp_path
):
    names = ("CUDA_CACHE_PATH", "CUDA_CACHE_MAXSIZE")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setattr(device, "DRIVER", tmp_path / "version")
    device.keep_gpu_kernels()
    assert not any(name in os.environ for name in names)
    device.DRIVER.touch()
    monkeypatch.setenv("CUDA_CACHE_MAXSIZE", "1")
    device.keep_gpu_kernels()
    assert [os.environ[name] for name in names] == ["/cache/convoy/cuda", "1"]
