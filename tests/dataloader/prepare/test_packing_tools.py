"""`dataloader.prepare tfds`, `verify` and `index`, and the file formats that they share."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.sources.find import find_source
from convoy.dataloader.tfrecord import crc
from convoy.dataloader.tfrecord.example import decode_example, encode_example
from tests.dataloader.packing import encoded, picture, prepare, read

ROOT = Path(__file__).parents[3]


def test_prepare_tfds_packs_a_prepared_data_set(tmp_path, capsys):
    folder = tmp_path / "tfds" / "noise" / "1.0.0"
    folder.mkdir(parents=True)
    images = [encoded(picture(i), "PNG") for i in range(9)]
    with tf.io.TFRecordWriter(str(folder / "noise-train.tfrecord-00000-of-00001")) as writer:
        for i, image in enumerate(images):
            writer.write(encode_example({"image": image, "label": i % 3}))
    splits = [{"name": "train", "shardLengths": ["9"]}]
    (folder / "dataset_info.json").write_text(json.dumps({"name": "noise", "splits": splits}))
    kinds = {"image": "a.Image", "label": "a.ClassLabel"}
    features = {name: {"pythonClassName": kind} for name, kind in kinds.items()}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "label.labels.txt").write_text("a\nb\nc\n")
    command = ("tfds", "noise", "--data_dir", tmp_path / "tfds", "--workers", 1)
    assert prepare(*command) == 2
    assert "give --out, or --download" in capsys.readouterr().err
    out = tmp_path / "out"
    assert prepare(*command, "--out", out) == 0
    source = find_source(out, "train")
    assert source.class_names == ["a", "b", "c"]
    found = {}
    for feature in read(source.files[0]):
        image = feature["image/encoded"].bytes_list.value[0]
        found[image] = feature["image/class/label"].int64_list.value[0] - 1
    assert found == {image: i % 3 for i, image in enumerate(images)}
    assert "train: 9 images of 3 classes" in capsys.readouterr().out
    assert prepare("tfds", "other", "--data_dir", tmp_path / "tfds", "--out", out) == 2
    assert "not prepared" in capsys.readouterr().err
    splits.append({"name": "test", "shardLengths": ["1"]})
    (folder / "dataset_info.json").write_text(json.dumps({"name": "noise", "splits": splits}))
    assert prepare(*command, "--out", tmp_path / "whole") == 2
    assert "noise-test.tfrecord-00000-of-00001 is missing" in capsys.readouterr().err
    assert not (tmp_path / "whole").exists()


def test_a_download_without_tensorflow_datasets_says_how_to_install_it(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    command = ("tfds", "mnist", "--data_dir", tmp_path, "--download")
    assert prepare(*command) == 2
    assert "Install it with: pip install" in capsys.readouterr().err


def test_verify_reports_every_kind_of_damage_with_its_place(photos, tmp_path, capsys):
    out = tmp_path / "out"
    prepare("folder", "--data_dir", photos, "--out", out, "--train_shards", 2, "--workers", 1)
    capsys.readouterr()
    assert prepare("verify", "--data_dir", out, "--workers", 1) == 0
    assert "60 train, 10 validation examples checked, 0 bad" in capsys.readouterr().err
    path = out / "train-00001-of-00002"
    source = find_source(out, "train")
    places = [source.locate(i)[1] for i in range(30, 60)]
    content = bytearray(path.read_bytes())
    content[places[3] + 300] ^= 1  # inside a payload
    content[places[7] + 1] ^= 1  # in a header
    # Cuts the last record but one and removes the last.
    path.write_bytes(content[: places[28] + 50])
    assert prepare("verify", "--data_dir", out, "--workers", 1, "--json") == 1
    printed = capsys.readouterr()
    assert "manifest.json promises 60 examples of the train split, and 59 are there" in printed.err
    report = json.loads(printed.out)
    assert report["examples"] == {"train": 59, "validation": 10}
    assert [(bad["key"], bad["offset"]) for bad in report["bad"]] == [
        (33, places[3]),
        (37, places[7]),
        (58, places[28]),
    ]
    reasons = [bad["reason"] for bad in report["bad"]]
    for reason, words in zip(
        reasons, ("checksum is wrong", "header is damaged", "cut short"), strict=True
    ):
        assert words in reason
    assert {bad["file"] for bad in report["bad"]} == {str(path)}


@pytest.mark.slow
def test_verify_with_several_processes_reports_bad_files(photos):
    (photos / "val" / "bee" / "04.jpg").write_bytes(encoded(picture(1))[:-200])
    (photos / "train" / "ant" / "00.jpg").write_bytes(b"")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dataloader.prepare",
            "verify",
            "--data_dir",
            photos,
            "--workers",
            "2",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0] == f"{photos}/train/ant/00.jpg (train 0): the image has no bytes"
    assert lines[1].startswith(f"{photos}/val/bee/04.jpg (validation 9): ")
    assert "60 train, 10 validation examples checked, 2 bad." in done.stderr


def test_prepare_index_writes_dalis_index_files(photos, tmp_path, capsys):
    out = tmp_path / "out"
    prepare("folder", "--data_dir", photos, "--out", out, "--train_shards", 3, "--workers", 1)
    assert prepare("index", "--data_dir", out) == 0
    assert "4 index files" in capsys.readouterr().out
    for path in find_source(out, "train").files:
        position, lines = 0, []
        for raw in tf.data.TFRecordDataset(path):
            size = len(raw.numpy()) + 16
            lines.append(f"{position} {size}\n")
            position += size
        assert Path(path + ".idx").read_text() == "".join(lines)
    assert find_source(out, "train").num_examples == 60  # index files are not taken for data
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.idx")}
    assert prepare("index", "--data_dir", out) == 0
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.idx")}
    assert prepare("index", "--data_dir", out, "--out", tmp_path / "elsewhere") == 0
    assert len(list((tmp_path / "elsewhere").glob("*.idx"))) == 4
    assert prepare("index", "--data_dir", photos) == 2
    assert "holds no TFRecord files" in capsys.readouterr().err


def test_examples_are_encoded_and_decoded_like_protobufs():
    features = {"a": b"\x00" * 300, "b/c": -5, "": 2**63 - 1, "ü": b""}
    ours = encode_example(features)
    theirs = tf.train.Example.FromString(ours).features.feature
    assert theirs["a"].bytes_list.value[0] == features["a"]
    assert theirs["b/c"].int64_list.value[0] == -5
    assert theirs[""].int64_list.value[0] == 2**63 - 1
    assert decode_example(ours) == {name: [value] for name, value in features.items()}
    message = tf.train.Example()
    message.features.feature["many"].int64_list.value.extend([1, -1, 300])
    message.features.feature["floats"].float_list.value.append(1.5)
    expected = {"many": [1, -1, 300], "floats": None}
    assert decode_example(message.SerializeToString()) == expected
    for damaged in (ours[:-1], b"\xff" * 20, ours[5:]):
        with pytest.raises((ValueError, UnicodeDecodeError)):
            decode_example(damaged)


def test_the_checksum_in_numpy_equals_the_one_by_rows():
    rng = np.random.default_rng(0)
    for size in (0, 1, 1023, 1024, 1025, 70_001):
        data = rng.bytes(size)
        by_rows = crc.masked_rows(np.frombuffer(data, np.uint8)[None])[0]
        assert crc._mask(crc._by_numpy(data)) & 0xFFFFFFFF == by_rows


def test_verify_reports_images_in_both_splits_and_with_two_labels(photos, tmp_path, capsys):
    for i, file in enumerate(sorted(photos.glob("val/*/*.jpg"))):
        file.write_bytes(encoded(picture(900 + i)))
    assert prepare("verify", "--data_dir", photos, "--workers", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == {"train": [], "validation": []}
    for i in range(3):
        shutil.copy(photos / f"train/bee/0{i}.jpg", photos / f"val/bee/copy{i}.jpg")
    shutil.copy(photos / "train/bee/07.jpg", photos / "train/ant/copy.jpg")
    out = tmp_path / "packed"
    prepare("folder", "--data_dir", photos, "--out", out, "--train_shards", 2, "--workers", 1)
    for place in (photos, out):
        capsys.readouterr()
        assert prepare("verify", "--data_dir", place, "--workers", 1, "--json") == 0
        warnings = json.loads(capsys.readouterr().out)["warnings"]
        assert warnings["train"][0].startswith("one image is there under two labels, such as ")
        assert warnings["validation"][0].startswith("3 images are in the train split as well, such")
    # The same image in another format counts too.
    with Image.open(photos / "train/bee/00.jpg") as image:
        image.save(photos / "val/bee/copy0.png")
    (photos / "val/bee/copy0.jpg").unlink()
    assert prepare("verify", "--data_dir", photos, "--workers", 1, "--json") == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]["validation"]
    assert (
        "3 images are in the train split as well (1 saved again, with the same pixels)" in warning
    )
    assert "ant/copy.jpg" in find_source(photos, "train").files[30]


@pytest.mark.usefixtures("native_ops")
def test_verify_names_images_that_libjpeg_warns_about(photos, capsys):
    """libjpeg fills missing data with grey, and neither TensorFlow nor Pillow reports it."""
    whole = (photos / "train/bee/03.jpg").read_bytes()
    start = whole.index(b"\xff\xda") + 20
    (photos / "train/bee/03.jpg").write_bytes(whole[:start] + whole[start + 60 :])
    (photos / "train/bee/04.jpg").write_bytes(whole[:-40])
    for as_json in (True, False):
        flags = ("--json",) if as_json else ()
        assert prepare("verify", "--data_dir", photos, "--workers", 1, *flags) == 1
        printed = capsys.readouterr()
        assert "Corrupt JPEG" not in printed.err
        if as_json:
            report = json.loads(printed.out)
            ((doubtful,), (bad,)) = report["doubtful"], report["bad"]
            assert (doubtful["file"], doubtful["key"]) == (str(photos / "train/bee/03.jpg"), 33)
            assert doubtful["reason"].startswith("Corrupt JPEG data: ")
            assert bad["reason"].startswith("jpeg::Uncompress failed. Invalid JPEG data")
            assert bad["file"] == str(photos / "train/bee/04.jpg")
        else:
            assert "bee/03.jpg (train 33): decoded, but may be damaged: Corrupt JPEG" in printed.out
            assert "1 bad, 1 doubtful." in printed.err
