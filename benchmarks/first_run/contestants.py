"""Runs one training, by Convoy or another program, and returns its result."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.harness.machine import ROOT
from convoy.runtime.fitted.rules import Facts, fitted
from convoy.utils import strict_json

TIMM_EPOCHS, TIMM_IMAGES = 300, 200
"""timm's train.py trains 300 epochs by default. It keeps them for up to 200 training images; for
more, it gets the number of epochs of the plain command.
"""


@dataclass(frozen=True)
class Trial:
    """One training. `flags` are added to the plain command; only searches have them."""

    data: str
    contestant: str
    seed: int
    flags: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        return self.data, self.contestant, self.seed, strict_json.dumps(self.flags, sort_keys=True)


def side_and_epochs(folder: Path, contestant: str) -> tuple[int, int]:
    """Returns the image size and the epochs that the plain command would choose for the folder."""
    files = sorted((folder / "train").rglob("*.png"))
    sides = []
    for file in files:
        with Image.open(file) as picture:
            sides.append(min(picture.size))
    chosen = fitted(Facts(len(files), 1, sorted(sides)[len(sides) // 2]), 224, {})
    side, epochs = chosen["image_size"], chosen["max_epochs"]
    own = contestant == "timm" and len(files) <= TIMM_IMAGES
    return side, TIMM_EPOCHS if own else epochs


def command(trial: Trial, folder: Path, run: Path, timm_python: str) -> list[str]:
    """Returns the command to run in the repository's root."""
    if trial.contestant in ("keras", "timm"):
        side, epochs = side_and_epochs(folder, trial.contestant)
        python = timm_python if trial.contestant == "timm" else sys.executable
        script = f"benchmarks.first_run.{trial.contestant}_script"
        return [python, "-m", script, str(folder), str(side), str(epochs), str(trial.seed)]
    flags = [text for name, value in trial.flags.items() for text in (f"--{name}", str(value))]
    where = ["--data_dir", str(folder), "--model_dir", str(run), "--seed", str(trial.seed)]
    return [sys.executable, "main.py", *where, *flags]


def measured(trial: Trial, folder: Path, run: Path, timm_python: str) -> dict[str, Any]:
    """Trains, and returns the trial with its best top-1 accuracy (in percent), time and command.

    Raises:
        SystemExit: the training failed; its output is in `run`.log.
    """
    line = command(trial, folder, run, timm_python)
    run.parent.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with Path(f"{run}.log").open("w") as log:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(line)} failed ({done.returncode}): see {run}.log")
    if trial.contestant in ("keras", "timm"):
        found = json.loads(Path(f"{run}.log").read_text().splitlines()[-1])
    else:
        found = json.loads((run / "checkpoints" / "best.json").read_text())
        found = {"top1": 100 * found["top1"]}
    return {
        **vars(trial),
        "top1": round(found["top1"], 2),
        "seconds": round(time.perf_counter() - begun),
        "command": shlex.join(["python", *line[1:]]).replace(f"{ROOT}/", ""),
    }
