"""`--mode eval` of an ONNX file, without TensorFlow."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, log_loss

from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.plain.square import eval_square
from tests.onnx_bytes import metadata, network
from tests.runtime.predict.without_tensorflow import without_tensorflow

pytest.importorskip("onnxruntime", reason="the extra predict, part of dev")
WEIGHTS = np.random.default_rng(0).normal(size=(3, 4)) / 40
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders of 37 validation pictures; the last class has none."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    for split, count in (("train", 4), ("val", 37)):
        for name in NAMES:
            (folder / split / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 50, 3), np.uint8) // rng.integers(1, 4, 3)
            place = folder / split / NAMES[i % (4 if split == "train" else 3)]
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i:02}.png")
    return folder


def by_hand(folder, names=NAMES):
    """Returns labels in the model's classes, and float64 probabilities, of the validation set."""
    labels, found = [], []
    for file in sorted(folder.glob("val/*/*.png")):
        view = eval_square(file.read_bytes(), 32, EvalCrop(8, exif_orientation="apply"))
        powers = np.exp(view.mean((0, 1)) @ WEIGHTS)
        labels.append(names.index(file.parent.name))
        found.append(powers / powers.sum())
    return np.array(labels), np.array(found)


@pytest.mark.parametrize("names", [NAMES, ("b", "c", "a", "d")])
def test_the_figures_are_those_of_scikit_learn(data, tmp_path, names):
    """The classes are matched by name."""
    (tmp_path / "model.onnx").write_bytes(network(WEIGHTS, about=metadata(classes=names)))
    flags = ["--model_dir", tmp_path, "--data_dir", data, "--eval_batch_size", "8"]
    done = without_tensorflow("--mode", "eval", *flags)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "log.json").read_text().splitlines()
    got = json.loads(lines[-1].removeprefix("DLLL "))["data"]
    labels, want = by_hand(data, names)
    assert got["eval_examples"] == len(labels) == 37
    assert got["eval_loss"] == pytest.approx(log_loss(labels, want, labels=range(4)), abs=1e-5)
    answers = want.argmax(-1)
    assert got["eval_accuracy_top_1"] == pytest.approx(np.mean(answers == labels))
    assert got["eval_accuracy_top_5"] == 1
    assert got["eval_macro_f1"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert "in ONNX Runtime" in done.stdout


def test_unreadable_images_and_unknown_classes_are_named(data, tmp_path):
    import shutil

    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "val" / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    file = tmp_path / "model.onnx"
    file.write_bytes(network(WEIGHTS, about=metadata(classes=NAMES)))
    flags = ["--pretrained_from_file", file, "--data_dir", tmp_path / "data"]
    flags += ["--model_dir", tmp_path / "out"]
    done = without_tensorflow("--mode", "eval", *flags)
    assert done.returncode == 1
    assert re.search(r"1 of 38 .*\n.*a/bad\.png: damaged \(it ends before its end", done.stderr)
    done = without_tensorflow("--mode", "eval", *flags, "--max_bad_eval_examples", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"eval_unreadable +1", done.stdout)
    file.write_bytes(network(WEIGHTS, about=metadata(classes=("a", "b", "x", "y"))))
    done = without_tensorflow("--mode", "eval", *flags)
    assert done.returncode == 1
    assert "has images of the class 'c', which the model does not know" in done.stderr
