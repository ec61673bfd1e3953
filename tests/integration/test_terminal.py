"""Commands on a terminal, where they draw bars and tables that a file does not get."""

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.terminal import Terminal


def on_a_terminal(*command):
    """Runs a command with a terminal for its output; returns the exit code and what is shown."""
    settings = {"TERM": "xterm", "COLUMNS": "80", "CUDA_VISIBLE_DEVICES": "-1"}
    terminal = Terminal()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT, env=os.environ | settings,
        stdin=subprocess.DEVNULL, stdout=terminal.device, stderr=terminal.device,
    )  # fmt: skip
    os.close(terminal.device)
    return process.wait(240), terminal.shown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_mode_works_on_a_terminal(small_run, tiny, photos, folders, tmp_path):
    run = tmp_path / "run"
    train = (*small_run, "--data_dir", tiny, "--model_dir", run, "--max_epochs", "2")
    prepare = ("-m", "dataloader.prepare", "folder", "--data_dir", folders)
    for command, shown in (
        (("main.py", *train, "--warmup_epochs", "0"), "top-1"),
        (("main.py", "--mode", "eval", "--model_dir", run, "--report"), "accuracy"),
        (("main.py", "--mode", "predict", "--model_dir", run, "--predict_dir", photos), "images/s"),
        (("main.py", "--mode", "export", "--model_dir", run), "export"),
        (("main.py", "--mode", "summary", "--memory", "--arch", "efficientnet-b0"), "total"),
        ((*prepare, "--out", tmp_path / "records"), "2 classes to"),
    ):
        code, text = on_a_terminal(*command)
        assert code == 0, f"{command}: {text}"
        assert "Traceback" not in text, f"{command}: {text}"
        assert shown in text, f"{command}: {text}"
