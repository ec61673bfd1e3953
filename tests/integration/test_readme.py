"""The README's commands run as written, on small data and with a small model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoy.model import get_arch
from tests.weight_file import write_timm

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# Appended to training commands, where later flags win; the rest of each command stays as it is
# written.
SMALL = "--arch efficientnet-test --image_size 32 --max_epochs 1 --warmup_epochs 0 --log_steps 5"
FEW = "--train_batch_size 16 --eval_batch_size 16 --no-use_xla --steps_per_epoch 2"
FEW += " --no-training_report"


def commands() -> list[str]:
    """Every command of the README's bash blocks, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    joined = [re.sub(r" \\\n +", " ", block) for block in blocks]
    return [line for block in joined for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder laid out as the README assumes: photos/, new_photos/, digits/, data/imagenet,
    configs/, runs/.
    """
    place = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for split, count in (("photos/train", 16), ("photos/val", 5), ("new_photos", 3)):
        for name in ("cat", "dog") if split != "new_photos" else ("",):
            folder = place / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    (place / "configs").symlink_to(ROOT / "configs")
    (place / "main.py").symlink_to(ROOT / "main.py")
    prepare = [sys.executable, "-m", "dataloader.prepare", "digits", "--out", str(place / "digits")]
    prepare += ["--train_examples", "64"]
    subprocess.run(prepare, cwd=ROOT, check=True, timeout=120)
    (place / "data").mkdir()
    (place / "data/imagenet").symlink_to(place / "digits")
    (place / "weights").mkdir()
    file = place / "weights" / "efficientnet_test.safetensors"
    write_timm(file, get_arch("efficientnet-test"), classes=1000, dtype=np.float32)
    return place


def test_readme_names_the_two_commands():
    assert "make demo\nmake test\n" in README
    assert "make test" in (ROOT / ".ci/run").read_text()


# Trained, resumed, evaluated and applied on one's own images; and what answers at once.
QUICK = ("runs/photos", "--help", "--mode list", "--mode env", "runtime.recipes")


@pytest.mark.timeout(900)  # a dozen processes, each with a limit of its own
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_commands_of_the_readme_run(place, every):
    seen = [c for c in commands() if not c.startswith(("source ", "pip "))]
    quick = [c for c in seen if any(text in c for text in QUICK)]
    assert len(seen) >= 14
    assert len(quick) >= 8
    shutil.rmtree(place / "runs", ignore_errors=True)
    for command in seen if every else quick:
        run = command.replace("/data/imagenet", "data/imagenet").replace("--nproc 8", "--nproc 2")
        if "dataloader.prepare digits" in command:
            run += " --train_examples 64 --overwrite"
        if "--mode " not in command and "--model_dir" in command:
            run += f" {SMALL} {FEW}"
            if "runs/photos" in command and "--resume_checkpoint" in command:
                run = run.replace("--max_epochs 1", "--max_epochs 2")
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "-1",
            "CONVOY_WEIGHTS": str(place / "weights"),  # what pip would have installed
        }
        done = subprocess.run(
            shlex.split(run),
            cwd=place,
            env=environment,
            timeout=240,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert (place / "runs/photos/predictions.csv").exists()
