"""Runs whole commands in new processes, and measures their time and peak memory.

A command may contain these placeholders:

- `{new}`: a new folder for each run.
- `{data}`: a folder of photographs, with a folder for each class.
- `{run}`: the folder of an EfficientNet-B0 that `--mode train` has trained on `{data}`, with an
  ONNX export; `{resnet50}`: that of a ResNet50.
- `{weights}`: a weight file of keras.applications' EfficientNet-B0.
- `{photos}`: a folder with 200 of the photographs; `{thousand}`: with 1,000; `{image}`: one.
- `{timm}`, `{timm_resnet50}`: timm's network as an ONNX file.
- `{compiled}`: a folder for `--xla_cache`, filled by the command's first run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.contenders import inference_models, photographs
from benchmarks.harness.contender import Contender
from benchmarks.harness.machine import ROOT

PLACE = ROOT / "build" / "bench" / "starts"
PHOTOS, THOUSAND = 200, 1000


def command(arguments: list[str], items: int = 1) -> Contender:
    """Returns a contender that runs `python ARGUMENTS` in the repository's root.

    Args:
        items: number of images that the command trains on or labels.
    """
    text = " ".join(arguments)
    places = {"data": str(data())} if "{data}" in text else {}
    places |= {key: str(prepared(key)) for key in _MAKERS if f"{{{key}}}" in text}
    peaks: list[float] = []

    def turn(count: int) -> None:
        peaks.clear()
        for _ in range(count):
            with tempfile.TemporaryDirectory() as new:
                peaks.append(run([part.format(**places, new=new) for part in arguments]))

    return Contender(turn, items=items, measures=lambda: {"peak_mib": max(peaks)})


def run(arguments: list[str]) -> float:
    """Runs `python ARGUMENTS`, and returns its peak memory in MiB.

    Raises:
        RuntimeError: the command failed; the message has the end of its output.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(
            status
        )  # wait4 has already reaped the process
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(arguments)}: {said.read().decode()[-2000:]}")
    return usage.ru_maxrss / 1024


def data() -> Path:
    """Returns a folder that has the photographs in `train/CLASS/`."""
    return photographs.prepared() / "files"


def prepared(key: str) -> Path:
    """Returns the path for a placeholder. Makes it once, and keeps it in build/bench/starts/."""
    name, make = _MAKERS[key]
    path = PLACE / name
    if not path.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            aside = Path(folder) / name
            make(aside)
            shutil.move(aside, path)
    return path


def _train(path: Path, arch: str = "efficientnet-b0") -> None:
    flags = ["--mode", "train", "--data_dir", str(data()), "--train_batch_size", "2"]
    flags += ["--steps_per_epoch", "1", "--max_epochs", "1", "--warmup_epochs", "0"]
    flags += ["--arch", arch, "--image_size", "224"]
    run(["main.py", *flags, "--no-training_report", "--model_dir", str(path)])
    flags = ["--mode", "export", "--export_format", "onnx", "--export_samples", "0"]
    run(["main.py", *flags, "--model_dir", str(path)])


def _save_weights(path: Path) -> None:
    net = f"keras.applications.EfficientNetB0(weights=None, classes={photographs.CLASSES})"
    run(["-c", f"import sys, keras; {net}.save_weights(sys.argv[1])", str(path)])


def _copy_photos(path: Path, count: int = PHOTOS) -> None:
    path.mkdir()
    for file in sorted(data().rglob("*.jpg"))[:count]:
        shutil.copy(file, path)


def _copy_photo(path: Path) -> None:
    shutil.copy(min(data().rglob("*.jpg")), path)


def _copy_timm(path: Path, arch: str = "efficientnet-b0") -> None:
    shutil.copy(inference_models.prepared(arch, 224, "timm.onnx"), path)


_MAKERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "run": ("run-with-export", _train),
    "resnet50": ("run-resnet50", partial(_train, arch="resnet50")),
    "weights": ("b0.weights.h5", _save_weights),
    "photos": ("photos", _copy_photos),
    "thousand": ("thousand", partial(_copy_photos, count=THOUSAND)),
    "image": ("image.jpg", _copy_photo),
    "timm": ("timm-b0.onnx", _copy_timm),
    "timm_resnet50": ("timm-resnet50.onnx", partial(_copy_timm, arch="resnet50")),
    "compiled": ("compiled", Path.mkdir),
}
