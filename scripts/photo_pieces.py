"""Makes the data of `scripts/demo_photos.sh`: two packages' photographs, and pieces of them.

    python scripts/photo_pieces.py DIR
    python scripts/photo_pieces.py --names PREDICTIONS.jsonl
    python scripts/photo_pieces.py --result MODEL_DIR

Writes `DIR/photographs/` (whole), `DIR/pieces/train/CLASS/` and `DIR/pieces/val/CLASS/`, where a
piece's class is its photograph, and `DIR/unseen/` with one evaluation piece of each class. Pieces
are squares of a grid, so no two share a pixel. `--names` prints the five most likely classes of
each image, `--result` the fraction of the evaluation pieces that a run's best checkpoint gets
right.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

# Files in scikit-image's and scikit-learn's wheels, by subject.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
}
SIDE = 80  # side of a piece in pixels
MOST = 30  # maximum number of pieces per photograph
FLAT = 4.0  # standard deviation of grey levels below which a piece is too flat
FOR_EVALUATION = 3  # every third


def places(width: int, height: int, side: int = SIDE) -> list[tuple[int, int]]:
    """Returns left and top of each square of a grid centred in an image."""
    left, top = width % side // 2, height % side // 2
    return [
        (left + side * i, top + side * j)
        for j in range(height // side)
        for i in range(width // side)
    ]


def pieces(photograph: Image.Image) -> list[Image.Image]:
    """Returns at most `MOST` squares with enough contrast, from all over the image."""
    cut = [photograph.crop((x, y, x + SIDE, y + SIDE)) for x, y in places(*photograph.size, SIDE)]
    cut = [piece for piece in cut if np.asarray(piece.convert("L")).std() >= FLAT]
    kept = np.unique(np.linspace(0, len(cut) - 1, min(MOST, len(cut))).round().astype(int))
    return [cut[i] for i in kept]


def write(folder: Path, name: str, photograph: Image.Image) -> tuple[int, int]:
    """Writes one photograph and its pieces; returns how many are for training and evaluation."""
    counts = {"train": 0, "val": 0}
    for path in (folder / "photographs", folder / "unseen"):
        path.mkdir(parents=True, exist_ok=True)
    photograph.save(folder / "photographs" / f"{name}.png")
    for number, piece in enumerate(pieces(photograph)):
        split = "train" if number % FOR_EVALUATION else "val"
        target = folder / "pieces" / split / name
        target.mkdir(parents=True, exist_ok=True)
        piece.save(target / f"{number:02}.png")
        if split == "val" and counts["val"] == 1:
            piece.save(folder / "unseen" / f"{name}.png")
        counts[split] += 1
    return counts["train"], counts["val"]


def main(folder: Path) -> None:
    """Finds the packages' files and cuts them. SystemExit names a missing package."""
    totals = np.zeros(2, int)
    for name, (package, file) in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(
                f"{package} is not installed: pip install -c constraints.txt -e '.[photos]'"
            )
        with Image.open(Path(spec.submodule_search_locations[0]) / file) as photograph:
            totals += write(folder, name, photograph.convert("RGB"))
    print(
        f"{len(PHOTOGRAPHS)} photographs, {totals[0]} pieces to train on, {totals[1]} to evaluate"
    )


def names(predictions: Path) -> str:
    """Returns a line for each image: its five most likely classes by their first names."""
    lines = []
    for answer in map(json.loads, predictions.read_text().splitlines()):
        found = [
            f"{each['class'].split(',')[0]} {100 * each['probability']:.0f} %"
            for each in answer["predictions"][:5]
        ]
        lines.append(f"{Path(answer['path']).stem:<11}{', '.join(found)}")
    return "\n".join(lines)


def result(model_dir: Path) -> str:
    """Returns a line about a run's best evaluation."""
    best = json.loads((model_dir / "checkpoints" / "best.json").read_text())
    return f"Top-1 on pieces that it was not trained on: {100 * best['top1']:.1f} %"


if __name__ == "__main__":
    shown = {"--names": names, "--result": result}.get(sys.argv[1])
    if shown:
        print(shown(Path(sys.argv[2])))
    else:
        main(Path(sys.argv[1]))
