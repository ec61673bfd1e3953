"""Makes photographs for measuring input: JPEGs of 500 × 375 pixels and about 70 kB.

    python -m benchmarks.contenders.photographs FOLDER

They are crops of scikit-learn's two photographs, with noise. The command writes 1,024 of them into
FOLDER twice: as files in `files/train/CLASS/`, and as TFRecords with index files for DALI in
`records`, which `dataloader.prepare` makes from the files.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness.machine import ROOT

COUNT, CLASSES = 1024, 16


def photographs(count: int = 64, height: int = 375, width: int = 500) -> list[bytes]:
    """Returns JPEGs of about 70 kB each. The same arguments give the same JPEGs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    originals = load_sample_images().images
    jpegs = []
    for i in range(count):
        original = originals[i % len(originals)]
        y = rng.integers(0, original.shape[0] - height + 1)
        x = rng.integers(0, original.shape[1] - width + 1)
        part = original[y : y + height, x : x + width].astype(np.float64)
        part = part * rng.uniform(0.8, 1.2) + rng.normal(0, 6, (height, width, 1))
        part = part[:, ::-1] if rng.random() < 0.5 else part
        jpegs.append(_jpeg_near(np.clip(part, 0, 255).astype(np.uint8), 70_000))
    return jpegs


def _jpeg_near(pixels: np.ndarray, size: int) -> bytes:
    """Returns the pixels as JPEG, with the quality whose length is nearest to `size` bytes."""
    from PIL import Image

    found = b""
    for quality in range(95, 40, -5):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
        if not found or abs(len(stream.getvalue()) - size) < abs(len(found) - size):
            found = stream.getvalue()
    return found


def prepared(folder: Path = ROOT / "build" / "bench" / "photographs") -> Path:
    """Returns the folder with `files` and `records`.

    If it is missing, a separate process makes it, so that the caller imports no packages for that.
    """
    if not folder.exists():
        command = [sys.executable, "-m", "benchmarks.contenders.photographs", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def write(folder: Path, count: int = COUNT, classes: int = CLASSES) -> None:
    """Makes `folder` atomically. Its photographs repeat after 64."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    jpegs = photographs(min(count, 64))
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place, folder.name)
        for i in range(count):
            path = made / "files" / "train" / f"{i % classes:02}" / f"{i:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpegs[i % len(jpegs)])
        prepare, records = [sys.executable, "-m", "dataloader.prepare"], str(made / "records")
        pack = [*prepare, "folder", "--data_dir", str(made / "files"), "--out", records]
        pack += ["--train_shards", "4"]
        for command in (pack, [*prepare, "index", "--data_dir", records]):
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        made.rename(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]).absolute())
