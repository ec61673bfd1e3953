"""`python -m dataloader.prepare digits`, started as a person would."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dataloader.errors import DataError
from dataloader.prepare import main, prepare_digits
from dataloader.sources import find_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_digits(tmp_path):
    out, images = tmp_path / "digits", tmp_path / "images"
    done = subprocess.run(
        [sys.executable, "-m", "dataloader.prepare", "digits", "--out", out, "--images", images],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "1437 training and 360 validation" in done.stdout
    train, validation = find_source(out, "train"), find_source(out, "validation")
    assert (train.num_examples, validation.num_examples) == (1437, 360)
    assert train.class_names == [str(i) for i in range(10)]

    import tensorflow as tf

    count = np.zeros((2, 10), int)
    digits = load_digits()
    for number, source in enumerate((train, validation)):
        for raw in source.read(np.arange(source.num_examples)):
            feature = tf.train.Example.FromString(raw).features.feature
            label = feature["image/class/label"].int64_list.value[0]
            assert feature["image/class/text"].bytes_list.value[0] == str(label - 1).encode()
            count[number, label - 1] += 1
    assert (count.sum(0) == np.bincount(digits.target)).all()
    assert np.abs(count[1] - 0.2 * np.bincount(digits.target)).max() <= 1  # stratified
    assert sum(len(files) for _, _, files in os.walk(images)) == 360
    picture = next((images / "7").glob("*.jpg"))
    with Image.open(picture) as image:
        assert (image.mode, image.size) == ("RGB", (48, 48))
        small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX)) * (16 / 255)
    original = digits.images[int(picture.stem)]
    assert digits.target[int(picture.stem)] == 7
    assert np.abs(small - original).mean() < 1.5
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_overwrite_and_repeat(tmp_path, capsys):
    out, images = str(tmp_path / "out"), tmp_path / "images"
    prepare_digits(out, image_size=8, shards=7, images=str(images))
    first = (tmp_path / "out" / "validation-00000-of-00001").read_bytes()
    (images / "3" / "mine.txt").write_text("keep")
    assert main(["digits", "--out", out]) == 2
    assert "is not empty: choose another folder or add --overwrite" in capsys.readouterr().err
    arguments = ["digits", "--out", out, "--image_size", "8", "--images", str(images)]
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "out" / "validation-00000-of-00001").read_bytes() == first  # same seed
    assert len([n for n in os.listdir(out) if n.startswith("train-")]) == 4  # no shard is left over
    assert (images / "3" / "mine.txt").exists()
    assert main([*arguments, "--overwrite", "--seed", "1"]) == 0
    assert (tmp_path / "out" / "validation-00000-of-00001").read_bytes() != first
    assert sum(len(list(folder.glob("*.jpg"))) for folder in images.iterdir()) == 360


@pytest.mark.parametrize(
    "wrong", [{"image_size": 4}, {"validation_fraction": 1.0}, {"validation_fraction": 0.001}]
)
def test_wrong_values(tmp_path, wrong):
    with pytest.raises(DataError, match=f"--{next(iter(wrong))}"):
        prepare_digits(str(tmp_path / "out"), **wrong)
    assert not (tmp_path / "out").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["digits", "--help"])
    assert stop.value.code == 0
    assert "--validation_fraction" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
