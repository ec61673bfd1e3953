"""Missing records without a damaged byte are reported as far as they can be known."""

import json
import os
import shutil

import pytest
import tensorflow as tf

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.completeness import find_gaps
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.tfrecord.example import encode_example
from convoy.dataloader.tfrecord.random_access import walk
from tests.dataloader.packing import encoded, picture, prepare


@pytest.fixture
def packed(photos, tmp_path, capsys):
    """60 training images, packed by `prepare folder` in five shards."""
    out = tmp_path / "packed"
    flags = ("--train_shards", 5, "--workers", 1)
    assert prepare("folder", "--data_dir", photos, "--out", out, *flags) == 0
    capsys.readouterr()
    return out


def cut(path, records):
    """Cuts a file after `records` complete records."""
    os.truncate(path, int(walk(str(path))[0][records]))


def verify(folder, capsys):
    status = prepare("verify", "--data_dir", folder, "--workers", 1, "--json")
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("harm", ["cut", "empty", "gone"])
def test_records_missing_according_to_the_manifest_are_reported_as_lost(packed, harm, capsys):
    assert find_source(packed, "train").notes == []
    shard = packed / "train-00003-of-00005"
    match harm:
        case "cut":
            cut(shard, 2)
        case "empty":
            os.truncate(shard, 0)
        case "gone":
            shard.unlink()
    left = 2 if harm == "cut" else 0
    says = (
        f"{packed}: manifest.json promises 60 examples of the train split, and {48 + left} are"
        f" there (train-00003-of-00005: 12, and {left} now). Copy it again"
    )
    source = find_source(packed, "train")
    assert says in source.notes
    assert source.lost == source.notes
    status, report = verify(packed, capsys)
    assert status == 1
    assert says in report["missing"]["train"]
    assert report["missing"]["validation"] == report["bad"] == []


def test_shards_from_which_bad_images_were_left_out_are_complete(photos, tmp_path, capsys):
    for i in range(0, 30, 2):
        (photos / "train/ant" / f"{i:02d}.jpg").write_bytes(b"no picture")
    flags = ("--train_shards", 5, "--workers", 1)
    assert prepare("folder", "--data_dir", photos, "--out", tmp_path / "packed", *flags) == 3
    assert find_source(tmp_path / "packed", "train").notes == []


@pytest.mark.parametrize(
    ("harm", "says", "lost"),
    [
        (lambda shard: cut(shard, 2), "00001-of-00005 holds 2 records where most hold 12", False),
        (lambda shard: os.truncate(shard, 0), "00001-of-00005 is empty. Compare", False),
        (lambda shard: shard.unlink(), "1 of the 5 shards train-* are missing (1)", True),
    ],
)
def test_without_a_manifest_shard_names_and_sizes_show_what_is_missing(
    packed, harm, says, lost, capsys
):
    (packed / "manifest.json").unlink()
    assert find_source(packed, "train").notes == []
    harm(packed / "train-00001-of-00005")
    source = find_source(packed, "train")
    assert says in source.notes[0]
    assert len(source.notes) == 1
    assert bool(source.lost) == lost
    status, report = verify(packed, capsys)
    assert status == lost
    assert report["warnings"]["train"] == source.notes


@pytest.mark.parametrize(
    "name",
    [
        "flowers_train_{:05d}-of-00004.tfrecord",  # as in TF-Slim
        "train-{:05d}-of-00004.tfrecord",
        "train.tfrecord-{:05d}-of-00004",
        "flowers-train.tfrecord-{:05d}-of-00004",  # TFDS
        "train-{:05d}-of-00004",
    ],
)
def test_missing_shards_are_noticed_in_many_numbering_styles(tmp_path, name):
    one = encode_example({"image/encoded": encoded(picture(1)), "image/class/label": 1})
    for number in (0, 1, 3):
        with tf.io.TFRecordWriter(str(tmp_path / name.format(number))) as writer:
            writer.write(one)
    source = find_source(tmp_path, "train")
    assert "1 of the 4 shards" in source.lost[0]
    assert "are missing (2)" in source.lost[0]


@pytest.mark.parametrize("copy", [" (1)", ".bak", "~", "-copy", ".old"])
def test_a_copy_of_a_shard_is_refused(packed, copy):
    shutil.copy(packed / "train-00001-of-00005", packed / f"train-00001-of-00005{copy}")
    with pytest.raises(DataError, match=r"beside numbered shards|different sets"):
        find_source(packed, "train")


def test_records_missing_according_to_tfds_and_kaggle_names_are_reported(tmp_path):
    info = {"splits": [{"name": "train", "shardLengths": ["100", "101"]}]}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    files = [f"{tmp_path}/x-train.tfrecord-0000{i}-of-00002" for i in range(2)]
    assert find_gaps(str(tmp_path), "train", files, [100, 101]) == ([], [])
    ((lost,), _) = find_gaps(str(tmp_path), "train", files, [100, 7])
    assert "dataset_info.json promises 201 examples of the train split, and 107 are there" in lost
    (tmp_path / "dataset_info.json").unlink()
    files = [f"train{i:02d}-{count}.tfrec" for i, count in enumerate((798, 800, 801, 795))]
    assert find_gaps(str(tmp_path), "train", files, [798, 800, 801, 795]) == ([], [])
    ((lost,), _) = find_gaps(str(tmp_path), "train", files, [798, 800, 801, 790])
    assert "the files' names promise 3194" in lost
    assert "(train03-795.tfrec: 795, and 790 now)" in lost


@pytest.mark.parametrize(
    ("counts", "odd"),
    [
        ([100, 100, 12, 100, 100], "12 records where most hold 100"),
        ([101, 100, 12, 100, 101, 100, 101, 100], "12 records where most hold 100 to 101"),
        ([1031, 980, 1044, 12, 1010, 995, 1027, 1001], "12 records where most hold 995 to 1044"),
        ([100, 12, 30, 100, 100, 100, 100, 100], "12 records .* (1 more files are short, too)"),
        ([50, 100, 100], "50 records"),
        ([100, 100, 100, 37], None),  # all full except the last
        ([101, 100, 101, 100], None),
        ([12, 100], None),  # either may be the odd one
        ([50, 700, 120, 330, 90, 610], None),  # sizes differ anyway
        ([70, 60, 100], None),
        ([5], None),
    ],
)
def test_a_shard_far_smaller_than_the_others_is_doubted(tmp_path, counts, odd):
    files = [f"train-{i:05d}-of-{len(counts):05d}" for i in range(len(counts))]
    lost, doubts = find_gaps(str(tmp_path), "train", files, counts)
    assert lost == []
    if odd is None:
        assert doubts == []
    else:
        ((doubt,), first, *rest) = (doubts, *odd.split(" .* "))
        assert first in doubt
        assert all(part in doubt for part in rest)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"splits": {"train": 3}}', '{"splits": 1}'])
def test_an_invalid_manifest_is_ignored(packed, content):
    for name in ("manifest.json", "dataset_info.json"):
        (packed / name).write_text(content)
    assert find_source(packed, "train").notes == []


def test_damage_in_the_first_records_is_counted(packed, capsys):
    path = packed / "train-00000-of-00005"
    content = bytearray(path.read_bytes())
    for start in walk(str(path))[0][:11].tolist():
        content[start + 12 : start + 60] = bytes(48)
    path.write_bytes(content)
    shutil.rmtree(packed.parent / "cache", ignore_errors=True)
    assert find_source(packed, "train").num_examples == 60
    status, report = verify(packed, capsys)
    assert status == 1
    assert len(report["bad"]) == 11
