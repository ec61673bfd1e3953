"""TensorFlow's settings before it loads, and warnings about the processor."""

import logging
import os
import platform
import subprocess
import sys

import pytest

from convoy.utils.machine import device

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


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
