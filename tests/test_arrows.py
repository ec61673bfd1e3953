"""Imports obey the contracts in pyproject.toml, which import-linter checks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINTER = Path(sys.executable).with_name("lint-imports")
FOLDERS = ("model", "dataloader", "runtime", "utils")


def lint(folder):
    # import-linter 2.15, the last for Python 3.10, takes the file only from the current folder.
    shutil.copy(ROOT / "pyproject.toml", folder)
    return subprocess.run(
        [LINTER, "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def as_in_a_wheel(folder):
    """Copies Convoy's Python files to where a wheel has them (in `convoy/`), and `benchmarks/`."""
    shutil.copytree(ROOT / "convoy", folder / "convoy")
    for name in FOLDERS:
        for file in (ROOT / name).rglob("*.py"):
            copy = folder / "convoy" / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")


def test_imports_obey_the_contracts_and_the_linter_finds_violations(tmp_path):
    as_in_a_wheel(tmp_path)
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "6 kept, 0 broken" in done.stdout
    # Two violations: a circle closed by an import inside a function, and an upward import.
    step = tmp_path / "convoy" / "runtime" / "train" / "step.py"
    step.write_text(f"{step.read_text()}\ndef up():\n    import convoy.runtime.train.trainer\n")
    files = tmp_path / "convoy" / "utils" / "files.py"
    files.write_text(f"from convoy.model import catalog\n{files.read_text()}")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "convoy.utils.files -> convoy.model.catalog" in done.stdout
    assert "circles, between files or between rooms BROKEN" in done.stdout
