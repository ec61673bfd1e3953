"""The data of the photograph demo: pieces share no pixel, and every class has both splits."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "photo_pieces.py"


@pytest.fixture(scope="module")
def cutter():
    spec = spec_from_file_location("photo_pieces", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbered(width, height):
    """Returns an image in which every pixel has a different colour."""
    number = np.arange(width * height).reshape(height, width)
    return Image.fromarray(
        np.stack([number % 256, number // 256 % 256, number // 65536], -1).astype(np.uint8)
    )


def read(path):
    with Image.open(path) as image:
        return np.asarray(image).reshape(-1, 3)


def test_pieces_of_one_photograph_share_no_pixel(cutter, tmp_path):
    counts = cutter.write(tmp_path, "cat", numbered(450, 301))
    files = sorted(tmp_path.glob("pieces/*/cat/*.png"))
    assert sum(counts) == len(files) == 15
    assert {path.parts[-3] for path in files} == {"train", "val"}
    pixels = np.concatenate([read(path) for path in files])
    assert len(pixels) == 15 * cutter.SIDE**2
    assert len(np.unique(pixels, axis=0)) == len(pixels)
    unseen = (tmp_path / "unseen" / "cat.png").read_bytes()
    assert unseen in [path.read_bytes() for path in files if path.parts[-3] == "val"]
    with Image.open(tmp_path / "photographs" / "cat.png") as whole:
        assert whole.size == (450, 301)


def test_a_large_photograph_gives_a_limited_number_of_pieces_and_flat_ones_are_left_out(cutter):
    large = cutter.pieces(numbered(1000, 1000))
    assert len(large) == cutter.MOST
    black = numbered(160, 80)
    black.paste((0, 0, 0), (0, 0, 80, 80))
    assert len(cutter.pieces(black)) == 1


def test_predictions_and_accuracy_of_a_run_are_printed_as_text(cutter, tmp_path):
    top = [{"class": f"tiger cat, {i}", "probability": 0.5 / (i + 1)} for i in range(6)]
    file = tmp_path / "predictions.jsonl"
    file.write_text(json.dumps({"path": "x/cat.png", "predictions": top, "error": None}) + "\n")
    expected = (
        "cat        tiger cat 50 %, tiger cat 25 %, tiger cat 17 %, tiger cat 12 %, tiger cat 10 %"
    )
    assert cutter.names(file) == expected
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.json").write_text('{"top1": 0.9304}')
    assert cutter.result(tmp_path).endswith("not trained on: 93.0 %")


def test_a_missing_package_is_named_with_its_pip_command(tmp_path):
    code = "import runpy, sys; sys.argv = ['x', sys.argv[1]]; import importlib.util as u;"
    code += (
        f" u.find_spec = lambda name: None; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "skimage is not installed: pip install" in done.stderr
