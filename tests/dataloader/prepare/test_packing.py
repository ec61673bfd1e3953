"""`dataloader.prepare folder`: packing, recoding and interruptions; help of all commands."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.images import BadImage, Recoding, recode
from convoy.dataloader.sources.find import find_source
from tests.dataloader.packing import digests, encoded, picture, prepare, read

ROOT = Path(__file__).parents[3]


def test_prepare_folder_packs_shuffled_unchanged_images_with_a_manifest(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        prepare("folder", "--data_dir", photos, "--out", out, "--train_shards", 4, "--workers", 2)
        == 0
    )
    assert "60 train and 10 validation images of 2 classes" in capsys.readouterr().out
    source = find_source(out, "train")
    assert (source.num_examples, source.class_names) == (60, ["ant", "bee"])
    assert len(source.files) == 4
    seen = []
    for file in source.files:
        labels = []
        for feature in read(file):
            name = feature["image/filename"].bytes_list.value[0].decode()
            label = feature["image/class/label"].int64_list.value[0]
            assert feature["image/class/text"].bytes_list.value[0].decode() == name.split("/")[0]
            assert label == {"ant": 1, "bee": 2}[name.split("/")[0]]
            original = (photos / "train" / name).read_bytes()
            assert feature["image/encoded"].bytes_list.value[0] == original  # bytes are unchanged
            seen.append(name)
            labels.append(label)
        assert len(set(labels)) == 2, "examples must be shuffled"
    assert len(set(seen)) == 60
    manifest = json.loads((out / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    assert (train["examples"], train["classes"], train["bad"]) == (60, [30, 30], [])
    for name, shard in train["shards"].items():
        assert shard["sha256"] == digests(out)[name]
        assert shard["records"] == 15
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_one_seed_gives_the_same_bytes_and_complete_shards_are_kept(photos, tmp_path, capsys):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    command = ("folder", "--data_dir", photos, "--workers", 1, "--out")
    assert prepare(*command, one) == 0
    first = digests(one)
    times = {path.name: path.stat().st_mtime_ns for path in one.glob("*-of-*")}
    capsys.readouterr()
    assert prepare(*command, one) == 0
    assert "2 of 2 shards were there already" in capsys.readouterr().out
    assert times == {path.name: path.stat().st_mtime_ns for path in one.glob("*-of-*")}
    assert digests(one) == first
    prepare(*command, two)
    assert digests(two) == first
    prepare(*command, three, "--seed", 1)
    assert digests(three) != first
    # A damaged shard is written again, the others are not.
    shard = one / "train-00000-of-00001"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert prepare(*command, one) == 0
    assert "1 of 2 shards were there already" in capsys.readouterr().out
    assert digests(one) == first
    assert prepare(*command, one, "--train_shards", 3) == 2
    assert "shards of another set (train-00000-of-00001, …)" in capsys.readouterr().err
    assert prepare(*command, one, "--train_shards", 3, "--overwrite") == 0
    assert find_source(one, "train").num_examples == 60


def test_shards_of_other_images_are_replaced_only_on_request(photos, tmp_path, capsys):
    """They have the same names, as these depend on the number of shards alone."""
    out = tmp_path / "packed"
    command = ("folder", "--out", out, "--workers", 1, "--data_dir")
    assert prepare(*command, photos) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    gone = sorted((other / "train").rglob("*.jpg"))[0]
    gone.unlink()
    capsys.readouterr()
    assert prepare(*command, other) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds other images, or packed with other settings (train-00000-of-00001, …)" in said
    assert "choose another folder or add --overwrite" in said
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert prepare(*command, photos) == 0, "the same images may be packed again"
    assert prepare(*command, other, "--overwrite") == 0
    assert (out / "train-00000-of-00001").read_bytes() != before["train-00000-of-00001"]


def test_a_killed_run_continues_and_leaves_no_incomplete_shard_visible(tmp_path, capsys):
    """The process gets SIGKILL in the middle; finished shards stay."""
    for name in ("ant", "bee"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for i in range(60):
            image = picture(i, (640, 480))
            image.save(tmp_path / "photos" / "train" / name / f"{i}.png", compress_level=1)
    out = tmp_path / "out"
    command = ["folder", "--data_dir", tmp_path / "photos", "--out", out, "--train_shards", "60"]
    command += ["--quality", "95", "--workers", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "dataloader.prepare", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob(".*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finished = [path.name[1:-5] for path in out.glob(".*.json")]
    assert 5 <= len(finished) < 60
    assert not (out / "manifest.json").exists()
    for name in finished:
        assert len(read(out / name)) == 2
    before = {name: (out / name).stat().st_mtime_ns for name in finished}
    assert prepare(*command) == 0
    assert f"{len(finished)} of 60 shards were there already" in capsys.readouterr().out
    assert before == {name: (out / name).stat().st_mtime_ns for name in finished}
    assert find_source(out, "train").num_examples == 120
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_formats_that_tensorflow_lacks_are_recoded_and_bad_files_left_out(photos, tmp_path, capsys):
    ant = photos / "train" / "ant"
    image = picture(7)
    (ant / "web.webp").write_bytes(encoded(image, "WEBP", lossless=True))
    (ant / "web.jpg").write_bytes(encoded(image, "WEBP", lossless=True))
    (ant / "scan.tiff").write_bytes(encoded(image, "TIFF"))
    (ant / "old.bmp").write_bytes(encoded(image.quantize(16), "BMP"))
    (ant / "deep.png").write_bytes(encoded(image, "PNG"))
    (ant / "empty.jpg").write_bytes(b"")
    (ant / "text.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert prepare("folder", "--data_dir", photos, "--out", out, "--workers", 1) == 3
    printed = capsys.readouterr().err
    assert "left out: ant/empty.jpg: the image has no bytes" in printed
    assert "2 images were left out" in printed
    manifest = json.loads((out / "manifest.json").read_text())
    listed = sorted(bad["file"] for bad in manifest["splits"]["train"]["bad"])
    assert listed == ["ant/empty.jpg", "ant/text.jpg"]
    (file,) = find_source(out, "train").files
    found = {f["image/filename"].bytes_list.value[0].decode(): f for f in read(file)}
    assert len(found) == 65
    old = found["ant/old.bmp"]  # JPEG would change a palette's colours
    assert old["image/format"].bytes_list.value[0] == b"png"
    pixels = tf.io.decode_png(old["image/encoded"].bytes_list.value[0]).numpy()
    assert (pixels == np.asarray(Image.open(ant / "old.bmp").convert("RGB"))).all()
    for name in ("web.webp", "web.jpg", "scan.tiff"):
        feature = found[f"ant/{name}"]
        assert feature["image/format"].bytes_list.value[0] == b"jpeg"
        pixels = tf.io.decode_jpeg(feature["image/encoded"].bytes_list.value[0]).numpy()
        expected = np.asarray(Image.open(ant / name).convert("RGB")).astype(int)
        assert np.abs(pixels - expected).mean() < 12
    assert found["ant/deep.png"]["image/format"].bytes_list.value[0] == b"png"
    assert prepare("verify", "--data_dir", out, "--workers", 1) == 0


def test_recoding_resizes_compresses_and_converts():
    wide = encoded(picture(1, (400, 200)))
    for short, size in ((100, (200, 100)), (50, (100, 50)), (200, (400, 200)), (300, (400, 200))):
        data, kind = recode(wide, Recoding(resize_short=short))
        assert kind == "jpeg"
        assert Image.open(io.BytesIO(data)).size == size
        assert (data == wide) == (short >= 200)
    small = Image.open(io.BytesIO(recode(wide, Recoding(resize_short=100))[0]))
    expected = Image.open(io.BytesIO(wide)).resize((200, 100), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(expected).astype(int)).mean() < 2
    assert len(recode(wide, Recoding(quality=30))[0]) < len(recode(wide, Recoding(quality=90))[0])
    cmyk = encoded(picture(1).convert("CMYK"))
    assert Image.open(io.BytesIO(recode(cmyk, Recoding(quality=90))[0])).mode == "RGB"
    with pytest.raises(BadImage, match="truncated"):
        recode(wide[:-2000], Recoding(quality=90))
    deep = Image.fromarray(np.full((20, 20), 51 * 257, np.uint16))
    data, _ = recode(encoded(deep, "PNG"), Recoding(quality=95))
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - 51).max() <= 1


def test_huge_images_are_refused_by_their_header_or_shrunk():
    huge = bytearray(encoded(picture(1)))
    place = huge.index(b"\xff\xc0") + 5
    huge[place : place + 4] = (20_000).to_bytes(2, "big") * 2
    with pytest.raises(BadImage, match="20000 x 20000 is more than"):
        recode(bytes(huge), Recoding())
    # Over the limit, but JPEG can shrink it while decoding.
    real = encoded(Image.new("L", (12_000, 9_000)), quality=20)
    data, _ = recode(real, Recoding(resize_short=300))
    assert Image.open(io.BytesIO(data)).size == (400, 300)


def test_an_image_too_long_for_a_jpeg_becomes_a_png():
    long = Image.new("RGB", (70_000, 3), (40, 200, 40))
    data, kind = recode(encoded(long, "TIFF"), Recoding())
    assert (kind, Image.open(io.BytesIO(data)).size) == ("png", (70_000, 3))


def test_class_folders_without_a_train_folder_are_split(photos, tmp_path):
    out = tmp_path / "out"
    command = ("folder", "--data_dir", photos / "train", "--out", out, "--workers", 1)
    assert prepare(*command, "--validation_fraction", 0.2) == 0
    train, validation = find_source(out, "train"), find_source(out, "validation")
    assert (train.num_examples, validation.num_examples) == (46, 14)
    names = {
        f["image/filename"].bytes_list.value[0]
        for s in (train, validation)
        for f in read(s.files[0])
    }
    assert len(names) == 60
    assert json.loads((out / "manifest.json").read_text())["splits"]["validation"]["classes"] == [
        6,
        8,
    ]


def test_records_are_not_written_among_the_images(photos, tmp_path, capsys):
    there = sorted(photos.rglob("*"))
    (tmp_path / "link").symlink_to(photos)
    for out in (photos, tmp_path / "link"):
        assert prepare("folder", "--data_dir", photos, "--out", out, "--workers", 1) == 2
        assert "--out is the folder of the images" in capsys.readouterr().err
    assert sorted(photos.rglob("*")) == there


def test_an_invalid_folder_is_refused_with_the_reason(photos, tmp_path, capsys):
    def refused(words, *arguments):
        assert prepare("folder", "--out", tmp_path / "out", "--workers", 1, *arguments) == 2
        assert words in capsys.readouterr().err

    refused("does not exist", "--data_dir", tmp_path / "nowhere")
    refused(
        "--train_shards 99: the train split has 60 images",
        "--data_dir",
        photos,
        "--train_shards",
        99,
    )
    refused("--quality must be 1 to 100", "--data_dir", photos, "--quality", 0)
    (photos / "val" / "cow").mkdir()
    refused("'cow' is not a class", "--data_dir", photos)
    (photos / "train" / "cow").mkdir()
    refused("train/cow: no image", "--data_dir", photos)
    (tmp_path / "empty").mkdir()
    refused("expected one folder per class", "--data_dir", tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_help_imports_neither_tensorflow_nor_numpy():
    code = (
        "import sys\n"
        "from convoy.dataloader.prepare.__main__ import main\n"
        "for command in ['digits', 'folder', 'tfds', 'imagenet', 'verify', 'index']:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'tensorflow', 'PIL', 'scipy', 'sklearn', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_ctrl_c_exits_with_130_and_says_how_to_continue(photos, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("convoy.dataloader.prepare.pack.make_shard", stop)
    assert prepare("folder", "--data_dir", photos, "--out", tmp_path / "out", "--workers", 1) == 130
    assert "to continue where this one stopped" in capsys.readouterr().err


def test_a_full_disk_raises_an_error_and_leaves_no_shard(photos, small_disk, capsys):
    for i in range(400):
        noise = np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(photos / "train" / "ant" / f"noise{i}.png")
    command = ("folder", "--data_dir", photos, "--out", small_disk / "out", "--workers", 1)
    assert prepare(*command) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list((small_disk / "out").glob("train-*"))
    with pytest.raises(DataError):
        find_source(small_disk / "out", "train")
