"""Recognising examples in changed data, and renumbering labels to a model's classes."""

import shutil

import numpy as np
import pytest

from convoy.dataloader.sources.cache import cache_source
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.identity import identify, known_again
from convoy.dataloader.sources.renumbered import UNKNOWN, Renumbered


@pytest.fixture
def records(tmp_path, writers):
    """30 digits in three shards, with class names."""
    names = [f"digit {i}" for i in range(10)]
    return writers.dataset(tmp_path / "records", writers.digits(30), [], names, shards=3)


def test_an_image_is_recognised_after_others_were_removed_or_the_folder_moved(photos, tmp_path):
    before = find_source(str(photos), "train")
    kept = [identify(before, i) for i in (0, 7, 41)]
    assert kept[0]["file"] == "ant/00.jpg"
    assert kept[0]["offset"] is None
    (photos / "train" / "ant" / "03.jpg").unlink()
    moved = tmp_path / "elsewhere"
    shutil.move(photos, moved)
    same, others = known_again(find_source(str(moved), "train"), kept)
    assert sorted(same) == [0, 6, 40]
    assert others == []


@pytest.mark.parametrize("change", ["removed", "repaired", "renamed"])
def test_a_changed_image_is_not_recognised(photos, change):
    kept = [identify(find_source(str(photos), "train"), 7)]
    file = photos / "train" / "ant" / "07.jpg"
    if change == "removed":
        file.unlink()
    elif change == "repaired":
        file.write_bytes(file.with_name("08.jpg").read_bytes())
    else:
        file.rename(file.with_name("x.jpg"))
    assert known_again(find_source(str(photos), "train"), kept) == ({}, kept)


def test_a_record_is_recognised_by_its_place_and_bytes(records):
    source = find_source(str(records), "train")
    kept = [identify(source, i) for i in range(30)]
    assert kept[10]["file"] == "train-00001-of-00003"
    assert kept[10]["offset"] == 0
    same, others = known_again(source, kept)
    assert sorted(same) == list(range(30))
    assert others == []
    path = records / kept[11]["file"]
    content = bytearray(path.read_bytes())
    content[kept[11]["offset"] + 40] ^= 1
    path.write_bytes(content)
    same, others = known_again(find_source(str(records), "train"), kept)
    assert sorted(set(range(30)) - set(same)) == [11]
    assert others == [kept[11]]


def test_the_digest_of_a_list_changes_with_its_examples_and_not_with_their_folder(
    photos, records, tmp_path
):
    for folder, name in ((photos, "train/ant/03.jpg"), (records, "train-00002-of-00003")):
        digest = find_source(str(folder), "train").list_digest()
        copy = tmp_path / f"{folder.name}-copy"
        shutil.copytree(folder, copy)
        assert find_source(str(copy), "train").list_digest() == digest
        (copy / name).unlink()
        assert find_source(str(copy), "train").list_digest() != digest


@pytest.mark.parametrize("cached", [False, True])
def test_labels_are_renumbered_to_the_models_classes(photos, records, cached):
    folder = find_source(str(photos), "train")
    assert folder.class_names == ["ant", "bee"]
    numbered = Renumbered(folder, [2, 0], ["bee", "cat", "ant"], 3)
    assert numbered.labels.tolist() == [2] * 30 + [0] * 30
    assert numbered.parse(b"raw", numbered.labels[0]) == (b"raw", 2)
    source = cache_source(find_source(str(records), "train"), "ram" if cached else "none", 0.01)
    back = Renumbered(source, [9 - i for i in range(9)] + [UNKNOWN], None, 10)
    labels = [label for _, label in map(source.parse, source.read(np.arange(30)), [0] * 30)]
    seen = [label for _, label in map(back.parse, back.read(np.arange(30)), [0] * 30)]
    assert seen == [UNKNOWN if label == 9 else 9 - label for label in labels]
    assert back.list_digest() == source.list_digest()
    assert known_again(back, [identify(source, 5)])[0].keys() == {5}


def test_occurring_labels_are_listed(photos, tmp_path, writers):
    assert find_source(str(photos), "train").occurring_labels() == [0, 1]
    some = [(pixels, label) for pixels, label in writers.digits(40) if label in (2, 5)]
    folder = writers.dataset(tmp_path / "some", some, [])
    assert find_source(str(folder), "train").occurring_labels() == [2, 5]
