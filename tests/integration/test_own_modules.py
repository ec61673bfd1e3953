"""A user's own modules named like Convoy's packages cause no conflict."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONVOY = Path(sys.executable).with_name("convoy")
NAMES = ("utils", "model", "runtime", "dataloader", "main")


@pytest.fixture
def own(tmp_path):
    """A folder with modules that fail when they are imported."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported the user\\'s {name}')\n")
    return tmp_path


@pytest.mark.parametrize("where", ["PYTHONPATH", "current folder"])
@pytest.mark.parametrize(
    "command",
    [
        (CONVOY, "--mode", "list", "--pattern", "resnet18"),
        (sys.executable, "-m", "convoy", "--mode", "list", "--pattern", "resnet18"),
        (sys.executable, "-m", "convoy.dataloader.prepare", "digits", "--help"),
        (sys.executable, "-m", "convoy.runtime.recipes"),
        (sys.executable, "-c", "from convoy.runtime import Runner; print('model')"),
    ],
    ids=["convoy", "-m convoy", "prepare", "recipes", "library"],
)
def test_a_users_modules_are_not_imported(own, command, where):
    environment, folder = dict(os.environ), own
    if where == "PYTHONPATH":
        environment["PYTHONPATH"], folder = str(own), own.parent
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_users_utils_and_the_older_module_names_work_together(tmp_path):
    """`from runtime import …` and `python -m dataloader.prepare` work beside a `utils.py`."""
    (tmp_path / "utils.py").write_text("mine = 1\n")
    code = "import utils; from runtime import Runner; print(utils.mine, Runner.__module__)"
    for words in (["-c", code], ["-m", "dataloader.prepare", "digits", "--help"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "convoy.runtime.runner" in done.stdout or "usage" in done.stdout
