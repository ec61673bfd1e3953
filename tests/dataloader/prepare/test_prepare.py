"""`python -m dataloader.prepare digits`, started as on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.__main__ import main
from convoy.dataloader.prepare.digits import prepare_digits
from convoy.dataloader.sources.find import find_source

ROOT = Path(__file__).parents[3]


def test_prepare_digits_writes_records_and_images_of_all_digits(tmp_path):
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
    assert np.abs(count[1] - 0.2 * np.bincount(digits.target)).max() <= 1  # stratified by class
    assert sum(len(files) for _, _, files in os.walk(images)) == 360
    picture = next((images / "7").glob("*.jpg"))
    with Image.open(picture) as image:
        assert (image.mode, image.size) == ("RGB", (48, 48))
        small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX)) * (16 / 255)
    original = digits.images[int(picture.stem)]
    assert digits.target[int(picture.stem)] == 7
    assert np.abs(small - original).mean() < 1.5
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_overwrite_removes_old_files_and_one_seed_gives_the_same_bytes(tmp_path, capsys):
    out, images = str(tmp_path / "out"), tmp_path / "images"
    prepare_digits(out, image_size=8, shards=7, images=str(images))
    first = (tmp_path / "out" / "validation-00000-of-00001").read_bytes()
    (images / "3" / "mine.txt").write_text("keep")
    assert main(["digits", "--out", out]) == 2
    assert "is not empty: choose another folder or add --overwrite" in capsys.readouterr().err
    arguments = ["digits", "--out", out, "--image_size", "8", "--images", str(images)]
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "out" / "validation-00000-of-00001").read_bytes() == first  # the same seed
    assert len([n for n in os.listdir(out) if n.startswith("train-")]) == 4  # no old shard is left
    assert (images / "3" / "mine.txt").exists()
    (tmp_path / "out" / "manifest.json").write_text("of prepare folder, with other numbers")
    assert main([*arguments, "--overwrite", "--seed", "1"]) == 0
    assert (tmp_path / "out" / "validation-00000-of-00001").read_bytes() != first
    assert sum(len(list(folder.glob("*.jpg"))) for folder in images.iterdir()) == 360
    assert not (tmp_path / "out" / "manifest.json").exists()


def labels_and_names(source):
    """Yields each record's label, counted from 0, and its class name."""
    import tensorflow as tf

    for raw in source.read(np.arange(source.num_examples)):
        feature = tf.train.Example.FromString(raw).features.feature
        label = feature["image/class/label"].int64_list.value[0]
        yield label - 1, feature["image/class/text"].bytes_list.value[0].decode()


@pytest.mark.parametrize("name", ["labels.txt", "manifest.json"])
def test_files_of_the_users_are_not_replaced(tmp_path, capsys, name):
    out, images = tmp_path / "out", tmp_path / "images"
    out.mkdir()
    (out / name).write_text("{}")
    digits = ("--image_size", "8", "--train_examples", "60", "--out", f"{tmp_path / 'x'}")
    assert main(["digits", *digits, "--images", f"{images}"]) == 0
    pack = ["folder", "--data_dir", f"{images}", "--out", f"{out}", "--validation_fraction", "0.5"]
    assert main(pack) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--out {out} holds a {name} that prepare did not write" in said
    assert (out / name).read_text() == "{}"
    assert main([*pack, "--overwrite"]) == 0
    assert main(pack) == 0


def test_digits_of_some_classes_and_with_few_examples(tmp_path, capsys):
    out, images = tmp_path / "out", tmp_path / "images"
    arguments = ["digits", "--image_size", "8", "--classes", "9,7-8"]
    assert main([*arguments, "--out", f"{out}", "--images", f"{images}"]) == 0
    assert "of 3 classes" in capsys.readouterr().out
    few = tmp_path / "few"
    assert main([*arguments, "--out", f"{few}", "--train_examples", "60"]) == 0
    assert main([*arguments, "--out", f"{tmp_path / 'four'}", "--train_examples", "4"]) == 0
    assert (out / "labels.txt").read_text() == "9\n7\n8\n"
    assert sorted(os.listdir(images)) == ["7", "8", "9"]
    there = np.bincount(load_digits().target)[[9, 7, 8]]
    train, validation = find_source(out, "train"), find_source(out, "validation")
    assert train.num_examples + validation.num_examples == there.sum()
    for source in (train, validation):
        assert {*labels_and_names(source)} == {(0, "9"), (1, "7"), (2, "8")}
    scarce = find_source(few, "train")
    counts = np.bincount([label for label, _ in labels_and_names(scarce)])
    assert counts.sum() == 60
    assert np.abs(counts - 60 * there / there.sum()).max() <= 1
    assert {*scarce.read(np.arange(60))} <= {*train.read(np.arange(train.num_examples))}
    name = "validation-00000-of-00001"
    assert (few / name).read_bytes() == (out / name).read_bytes()
    assert find_source(tmp_path / "four", "train").num_examples == 4


@pytest.mark.parametrize("classes", ["3", "1,1", "0-11", "4-2", "a", "", "1,,2", "-3"])
def test_invalid_classes_are_refused(tmp_path, capsys, classes):
    assert main(["digits", "--out", str(tmp_path / "out"), f"--classes={classes}"]) == 2
    assert "--classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 4},
        {"validation_fraction": 1.0},
        {"validation_fraction": 0.001},
        {"train_examples": 9},
        {"train_examples": 1438},
    ],
)
def test_invalid_values_are_refused_by_flag(tmp_path, wrong):
    with pytest.raises(DataError, match=f"--{next(iter(wrong))}"):
        prepare_digits(str(tmp_path / "out"), **wrong)
    assert not (tmp_path / "out").exists()


def test_help_lists_flags_and_a_missing_command_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["digits", "--help"])
    assert stop.value.code == 0
    assert "--validation_fraction" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


def test_nothing_is_prepared_into_the_checkpoints_of_a_run(tmp_path, capsys):
    step = tmp_path / "checkpoints" / "step-00000001"
    step.mkdir(parents=True)
    assert main(["digits", "--out", str(step / "digits")]) == 2
    assert "--out" in (said := capsys.readouterr().err)
    assert "lies among the checkpoints in" in " ".join(said.split())
    assert not any(step.iterdir())
