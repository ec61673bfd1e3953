"""Writes the launch scripts of B0/, B4/ and RN50/, one for each case in the documents.

    python scripts/write_launch_scripts.py      after a change here; a test compares the result

Names are those of NVIDIA's two documents, plus 1x, H100 and H200. Each script names a recipe of
configs/launch.yaml; launch.sh runs it. There are no scripts for precisions that a GPU lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path.insert(0, str(SCRIPTS.parent))

from convoy.runtime.settings.recipes import lookup, table  # noqa: E402 — found by the line above

PRECISIONS = ("AMP", "TF32", "FP32")
GPUS = {
    "A100-80G": "DGXA100",
    "V100-16G": "DGX1V",
    "V100-32G": "DGX1V-32G",
    "H100-80G": "H100-80G",
    "H200-141G": "H200-141G",
}
# Machine names in the ResNet50 document.
MACHINES = {
    "DGXA100": "DGXA100",
    "DGX1V": "DGX1V",
    "DGX2V": "DGX2V",
    "DGXH100": "H100-80G",
    "DGXH200": "H200-141G",
}
MODELS = {"B0": "efficientnet-b0", "B4": "efficientnet-b4", "RN50": "resnet50"}
TITLES = {"B0": "EfficientNet-B0", "B4": "EfficientNet-B4", "RN50": "ResNet50"}


def scripts() -> dict[str, str]:
    """Returns the scripts' texts by path below scripts/."""
    found: dict[str, str] = {}
    for folder, model in MODELS.items():
        for precision in PRECISIONS:
            found |= _by_gpu(folder, model, precision)
            found |= _script(
                f"{folder}/inference/inference_{precision}.sh",
                f"{TITLES[folder]}, {precision}: label the images in INFER_DIR",
                1,
                f"{model}/{precision}/DGXA100/predict",
            )
    for precision in PRECISIONS:
        for name, machine in _having(MACHINES, precision):
            for epochs in table()["models"]["resnet50"]["recipes"]:
                found |= _script(
                    f"RN50/{precision}/{name}_resnet50_{precision}_{epochs}E.sh",
                    f"ResNet50, {precision}, {name}: {epochs} epochs into the folder given",
                    lookup("resnet50", precision, machine).gpus,
                    f"resnet50/{precision}/{machine}/convergence/{epochs}E",
                )
    return found


def _by_gpu(folder: str, model: str, precision: str) -> dict[str, str]:
    found: dict[str, str] = {}
    epochs = 90 if folder == "RN50" else max(table()["models"][model]["recipes"])
    for gpu, platform in _having(GPUS, precision):
        for count in (1, 8):
            where, what = f"{count}x{gpu}", f"{TITLES[folder]}, {precision}, {count}x {gpu}"
            recipe = f"{model}/{precision}/{platform}"
            training = f"{folder}/training/{precision}"
            found |= _script(
                f"{training}/convergence_{where}.sh",
                f"{what}: {epochs} epochs",
                count,
                f"{recipe}/convergence/{epochs}E",
            )
            found |= _script(
                f"{training}/train_benchmark_{where}.sh",
                f"{what}: training throughput, 500 steps",
                count,
                f"{recipe}/train_benchmark",
            )
            found |= _script(
                f"{folder}/evaluation/evaluation_{precision}_{where}.sh",
                f"{what}: evaluation of the best checkpoint in MODEL_DIR",
                count,
                f"{recipe}/evaluate",
            )
    return found


def _having(platforms: dict[str, str], precision: str) -> Iterator[tuple[str, str]]:
    for name, platform in platforms.items():
        if precision not in table()["platforms"][platform].get("lacks", {}):
            yield name, platform


def _script(path: str, title: str, processes: int, recipe: str) -> dict[str, str]:
    up = "../" * path.count("/")
    text = f"#!/usr/bin/env bash\n# {title}\n"
    return {
        path: f'{text}exec "$(dirname "$0")/{up}launch.sh" {processes} {recipe} "$@"\n',
    }


def main() -> None:
    """Replaces all scripts."""
    wanted = scripts()
    for folder in MODELS:
        for old in (SCRIPTS / folder).rglob("*.sh"):
            if str(old.relative_to(SCRIPTS)) not in wanted:
                old.unlink()
    for path, text in wanted.items():
        file = SCRIPTS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    print(f"{len(wanted)} scripts in {SCRIPTS}")


if __name__ == "__main__":
    main()
