"""Commands of the README and the first pages run as written, on small data and a small model."""

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
PAGES = (ROOT / "README.md", ROOT / "docs/finetune.md", ROOT / "docs/tutorial.md")
# Appended to training commands, where later flags win; the rest of a command stays as written.
SMALL = "--arch efficientnet-test --image_size 32 --max_epochs 1 --warmup_epochs 0 --log_steps 5"
FEW = "--train_batch_size 16 --eval_batch_size 16 --no-use_xla --steps_per_epoch 2"
FEW += " --no-training_report"


def commands(page: Path) -> list[str]:
    """Returns the commands of a page's bash blocks, in order, without installation commands."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
    joined = [re.sub(r" \\\n +", " ", block) for block in blocks]
    lines = [line for block in joined for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(("source ", "pip ", "make "))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files that the README assumes: photos/, new_photos/, digits/, and so on."""
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


def test_the_readme_names_make_demo_and_make_test():
    assert "make demo\nmake test\n" in README
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen processes, each with its own limit
def test_the_readmes_commands_run(place):
    """Except the export, which takes longer."""
    shown = [line for line in commands(PAGES[0]) if "--mode export" not in line]
    assert len(shown) >= 6
    run_all(shown, place)
    assert (place / "runs/photos/predictions.csv").exists()


@pytest.mark.slow
def test_the_tutorials_commands_for_checking_and_previewing_a_folder_run(place):
    shown = [line for line in commands(PAGES[-1]) if "dataloader.prepare" in line]
    assert len(shown) == 2
    run_all(shown, place)
    assert (place / "sheet.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(place, page):
    # The photographs of photo_pieces are in a package of their own.
    shown = [line for line in commands(page) if "photo_pieces" not in line]
    run_all(shown, place)
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        if page.name == "tutorial.md":
            run_one(["-c", code.replace("1.jpg", "0.jpg")], place, code)


def run_all(shown: list[str], place: Path) -> None:
    shutil.rmtree(place / "runs", ignore_errors=True)
    for command in shown:
        run = command.replace("/data/imagenet", "data/imagenet").replace("--nproc 8", "--nproc 2")
        if "dataloader.prepare digits" in command:
            run += " --train_examples 64 --overwrite"
        if "--mode " not in command and "--model_dir" in command:
            run += f" {SMALL} {FEW}"
            if "runs/photos" in command and "--resume_checkpoint" in command:
                run = run.replace("--max_epochs 1", "--max_epochs 2")
        program, *words = shlex.split(run)
        assert program == "python"
        run_one(words, place, command)


def run_one(words: list[str], place: Path, shown: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "-1",
        "CONVOY_WEIGHTS": str(place / "weights"),  # where pip would have installed them
    }
    done = subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=environment,
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shown}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
