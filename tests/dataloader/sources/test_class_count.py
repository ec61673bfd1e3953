"""Counting classes in TFRecord files that TensorFlow wrote."""

import os
import random

import numpy as np
import pytest

from convoy.dataloader.bad_images.culprits import what_is_wrong
from convoy.dataloader.errors import DataError
from convoy.dataloader.sources import class_count
from convoy.dataloader.sources.find import find_source
from tests import records


def classic(label, size=100_000):
    """Returns an Example like the ImageNet builder's, with its other keys and a large image."""
    features = {
        "image/height": 500,
        "image/width": 375,
        "image/class/synset": b"n01440764",
        "image/class/text": b"tench",
        "image/object/bbox/label": [7, 8, 9],
        "image/object/number": -3,
        "image/object/score": 0.5,
        "image/class/label": label,
        "image/encoded": np.random.default_rng(label).bytes(size),
    }
    keys = list(features)
    random.Random(label).shuffle(keys)
    return records.example({key: features[key] for key in keys})


def write(folder, examples, name="train-00000-of-00001"):
    records.write(folder / name, examples)


def test_the_number_of_classes_is_the_largest_label(data):
    write(data, [classic(label) for label in (3, 1, 12, 2, 12, 7, 9, 11)], "train-00000-of-00002")
    write(data, [classic(label) for label in (4, 5)], "train-00001-of-00002")
    source = find_source(str(data), "train")
    assert source.num_classes is None
    assert source.count_classes() == 12
    assert source.num_classes == 12


def test_labels_of_tfds_count_from_0(data):
    write(data, [records.example({"image": b"x", "label": label}) for label in (0, 1, 2)])
    assert find_source(str(data), "train").count_classes() == 3


def test_counting_classes_does_not_read_the_images(data, monkeypatch):
    write(data, [classic(label, 1_000_000) for label in range(1, 11)])
    source = find_source(str(data), "train")
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: read.append(args[1]) or pread(*args))
    assert source.count_classes() == 10
    assert sum(read) < 10 * 4096


def test_the_number_of_classes_is_cached_until_a_file_changes(data, monkeypatch):
    write(data, [classic(1, 100), classic(2, 100)])
    assert find_source(str(data), "train").count_classes() == 2
    with monkeypatch.context() as patch:
        patch.setattr(class_count, "_labels_of", None)  # fails if it is called
        assert find_source(str(data), "train").count_classes() == 2
    write(data, [classic(1, 100), classic(2, 100), classic(3, 100)])
    assert find_source(str(data), "train").count_classes() == 3


def test_an_unreadable_label_does_not_stop_counting(data):
    write(data, [classic(1, 100), b"\xff\xff\xff no example", classic(2, 100), b""])
    assert find_source(str(data), "train").count_classes() == 2


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((0, 1, 2), "counts classes from 1, and there are records with 0. Give --first_label 0"),
        ((1, 2, 5000), "labels go up to 5000, but only 3 different ones occur. Set --num_classes"),
    ],
)
def test_unclear_labels_are_refused(data, found, words):
    write(data, [classic(label, 100) for label in found])
    with pytest.raises(DataError, match=words):
        find_source(str(data), "train").count_classes()


def test_first_label_sets_the_number_from_which_labels_count(data):
    write(data, [classic(label, 100) for label in (0, 1, 2, 2)])
    source = find_source(str(data), "train", first_label=0)
    assert source.count_classes() == 3
    assert [source.parse(raw, 0)[1] for raw in source.read(np.arange(4))] == [0, 1, 2, 2]
    with pytest.raises(DataError, match="counts classes from 2, and there are records with 0"):
        find_source(str(data), "train", first_label=2).count_classes()


@pytest.mark.parametrize(
    ("stored", "first_label", "words"),
    [
        (0, None, "image/class/label is 0, and labels count from 1 here"),
        (0, None, "give --first_label 0; or correct the label"),
        (4, None, r"image/class/label is 4, counted from 1 .* outside the 3 names of labels.txt"),
        (3, 0, r"image/class/label is 3, counted from 0 \(--first_label\)"),
    ],
)
def test_the_error_for_a_label_outside_the_names_shows_the_stored_number(
    data, stored, first_label, words
):
    write(data, [classic(stored, 100)])
    (data / "labels.txt").write_text("cat\ndog\nowl\n")
    source = find_source(str(data), "train", first_label=first_label)
    with pytest.raises(DataError, match=words):
        what_is_wrong(source, 0, 3, lambda encoded: None)


def test_names_that_begin_with_background_cause_a_warning(data, caplog):
    write(data, [classic(1, 100)])
    (data / "labels.txt").write_text("background\ncat\n")
    with caplog.at_level("WARNING", "convoy.data"):
        find_source(str(data), "train")
    assert "give --first_label 0" in caplog.text
    caplog.clear()
    find_source(str(data), "train", first_label=0)
    assert not caplog.text


def test_first_label_is_refused_for_class_folders(folders):
    with pytest.raises(DataError, match="--first_label is for TFRecord files"):
        find_source(str(folders), "train", first_label=0)
