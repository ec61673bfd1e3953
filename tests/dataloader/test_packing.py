"""`dataloader.prepare folder`, `imagenet`, `tfds`, `verify` and `index`, on real files."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dataloader import crc
from dataloader.errors import DataError
from dataloader.example import decode_example, encode_example
from dataloader.prepare.__main__ import main
from dataloader.prepare.imagenet import class_names, read_devkit
from dataloader.prepare.images import BadImage, Recoding, recode
from dataloader.sources import find_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(i, size=(36, 24)):
    rng = np.random.default_rng(i)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def prepare(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path):
    """Two classes with 30 training and 5 validation images each."""
    for split, count in (("train", 30), ("val", 5)):
        for k, name in enumerate(("bee", "ant")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:02d}.jpg").write_bytes(encoded(picture(100 * k + i)))
    return tmp_path / "photos"


def read(path):
    """The Examples of a file as TensorFlow reads them, checksums and all."""
    return [
        tf.train.Example.FromString(raw.numpy()).features.feature
        for raw in tf.data.TFRecordDataset(str(path))
    ]


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }


def test_folder(photos, tmp_path, capsys):
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
            assert feature["image/encoded"].bytes_list.value[0] == original  # not touched
            seen.append(name)
            labels.append(label)
        assert len(set(labels)) == 2, "shuffled"
    assert len(set(seen)) == 60
    manifest = json.loads((out / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    assert (train["examples"], train["classes"], train["bad"]) == (60, [30, 30], [])
    for name, shard in train["shards"].items():
        assert shard["sha256"] == digests(out)[name]
        assert shard["records"] == 15
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_same_seed_same_bytes_and_nothing_done_twice(photos, tmp_path, capsys):
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
    # Damaged since: written again, and only that one.
    shard = one / "train-00000-of-00001"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert prepare(*command, one) == 0
    assert "1 of 2 shards were there already" in capsys.readouterr().out
    assert digests(one) == first
    assert prepare(*command, one, "--train_shards", 3) == 2
    assert "shards of another set (train-00000-of-00001, …)" in capsys.readouterr().err
    assert prepare(*command, one, "--train_shards", 3, "--overwrite") == 0
    assert find_source(one, "train").num_examples == 60


def test_a_killed_run_goes_on(tmp_path, capsys):
    """SIGKILL in the middle; what was finished stays, and nothing half-done is ever in sight."""
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


def test_what_tensorflow_cannot_read_is_recoded(photos, tmp_path, capsys):
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
    assert "left out: ant/empty.jpg: the file is empty" in printed
    assert "2 images were left out" in printed
    manifest = json.loads((out / "manifest.json").read_text())
    listed = sorted(bad["file"] for bad in manifest["splits"]["train"]["bad"])
    assert listed == ["ant/empty.jpg", "ant/text.jpg"]
    (file,) = find_source(out, "train").files
    found = {f["image/filename"].bytes_list.value[0].decode(): f for f in read(file)}
    assert len(found) == 65
    for name in ("web.webp", "web.jpg", "scan.tiff", "old.bmp"):
        feature = found[f"ant/{name}"]
        assert feature["image/format"].bytes_list.value[0] == b"jpeg"
        pixels = tf.io.decode_jpeg(feature["image/encoded"].bytes_list.value[0]).numpy()
        expected = np.asarray(Image.open(ant / name).convert("RGB")).astype(int)
        assert np.abs(pixels - expected).mean() < 12
    assert found["ant/deep.png"]["image/format"].bytes_list.value[0] == b"png"
    assert prepare("verify", "--data_dir", out, "--workers", 1) == 0


def test_recoding():
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


def test_enormous_images_are_bounded():
    huge = bytearray(encoded(picture(1)))
    place = huge.index(b"\xff\xc0") + 5
    huge[place : place + 4] = (20_000).to_bytes(2, "big") * 2
    with pytest.raises(BadImage, match="20000 x 20000 is more than"):
        recode(bytes(huge), Recoding())
    real = encoded(Image.new("L", (12_000, 9_000)), quality=20)  # over the bound, and shrinks well
    data, _ = recode(real, Recoding(resize_short=300))
    assert Image.open(io.BytesIO(data)).size == (400, 300)


def test_classes_without_a_train_folder(photos, tmp_path):
    out = tmp_path / "out"
    command = ("folder", "--data_dir", photos / "train", "--out", out, "--workers", 1)
    assert prepare(*command, "--validation_fraction", 0.2) == 0
    train, validation = find_source(out, "train"), find_source(out, "validation")
    assert (train.num_examples, validation.num_examples) == (48, 12)
    names = {
        f["image/filename"].bytes_list.value[0]
        for s in (train, validation)
        for f in read(s.files[0])
    }
    assert len(names) == 60
    assert json.loads((out / "manifest.json").read_text())["splits"]["validation"]["classes"] == [
        6,
        6,
    ]


def test_wrong_folders(photos, tmp_path, capsys):
    def refused(words, *arguments):
        assert prepare("folder", "--out", tmp_path / "out", "--workers", 1, *arguments) == 2
        assert words in capsys.readouterr().err

    refused("is not a folder", "--data_dir", tmp_path / "nowhere")
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
    refused("expected one folder a class", "--data_dir", tmp_path / "empty")
    assert not (tmp_path / "out").exists()


# ---- ImageNet -----------------------------------------------------------------------------------

WNIDS = ["n01440764", "n01443537", "n02012849", "n03126707"]
WORDS = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane"]
IDS = [3, 1, 4, 2]  # the kit's own numbers follow no order of ours


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def tar_of(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files:
            add(archive, name, data)
    return buffer.getvalue()


def meta_mat():
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)]
    kinds += [("num_children", object), ("num_train_images", object)]
    rows = [
        (number, wnid, words, "what it is", 0, 1300)
        for number, wnid, words in sorted(zip(IDS, WNIDS, WORDS, strict=True))
    ]
    rows.append((5, "n00001740", "entity", "that which is", 4, 0))
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, kinds).reshape(-1, 1)})
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path):
    """The three files of ILSVRC2012 in small: 4 classes of 5 images, and 9 of validation."""
    folder = tmp_path / "tars"
    folder.mkdir()
    inner = []
    for k, wnid in enumerate(WNIDS):
        images = [(f"{wnid}_{i}.JPEG", encoded(picture(10 * k + i))) for i in range(5)]
        inner.append((f"{wnid}.tar", tar_of(images)))
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    validation = [(f"ILSVRC2012_val_{i:08d}.JPEG", encoded(picture(50 + i))) for i in range(1, 10)]
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(reversed(validation)))
    truth = [1, 2, 3, 4, 4, 3, 2, 1, 1]
    kit = "ILSVRC2012_devkit_t12/data/"
    text = "".join(f"{number}\n" for number in truth).encode()
    files = [(kit + "meta.mat", meta_mat()), (kit + "ILSVRC2012_validation_ground_truth.txt", text)]
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(files, "w:gz"))
    return folder


def test_imagenet(tars, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("imagenet", "--data_dir", tars, "--out", out, "--workers", 1)
    assert prepare(*command, "--train_shards", 2) == 0
    names = ["tench", "goldfish", "crane (n02012849)", "crane (n03126707)"]
    train, validation = find_source(out, "train"), find_source(out, "validation")
    assert train.class_names == names
    assert (train.num_examples, validation.num_examples) == (20, 9)
    for file in train.files:
        for feature in read(file):
            name = feature["image/filename"].bytes_list.value[0].decode()
            wnid = feature["image/class/synset"].bytes_list.value[0].decode()
            label = feature["image/class/label"].int64_list.value[0] - 1
            assert name.startswith(f"{wnid}/{wnid}_")
            assert WNIDS[label] == wnid
            i = int(name.split("_")[1].split(".")[0])
            assert feature["image/encoded"].bytes_list.value[0] == encoded(picture(10 * label + i))
    truth = [1, 2, 3, 4, 4, 3, 2, 1, 1]
    for feature in read(validation.files[0]):
        name = feature["image/filename"].bytes_list.value[0].decode()
        i = int(name.split("_")[2].split(".")[0])
        label = feature["image/class/label"].int64_list.value[0] - 1
        assert IDS[label] == truth[i - 1]
        assert feature["image/encoded"].bytes_list.value[0] == encoded(picture(50 + i))
    assert len({f["image/filename"].bytes_list.value[0] for f in read(validation.files[0])}) == 9


def test_imagenet_by_a_file_of_labels(tars, tmp_path, capsys):
    kit = tars / "ILSVRC2012_devkit_t12.tar.gz"
    _, truth = read_devkit(str(kit))
    prepare("imagenet", "--data_dir", tars, "--out", tmp_path / "kit", "--workers", 1)
    kit.unlink()
    out, labels = tmp_path / "out", tmp_path / "labels.txt"
    command = ("imagenet", "--data_dir", tars, "--out", out, "--workers", 1)
    assert prepare(*command) == 2
    assert (
        "put it beside it, or name a file with a wnid a line with --val_labels"
        in capsys.readouterr().err
    )
    command += ("--val_labels", labels)
    for lines in (
        truth,
        [f"ILSVRC2012_val_{i:08d}.JPEG {w}" for i, w in enumerate(truth, 1)][::-1],
    ):
        labels.write_text("\n".join(lines))
        assert prepare(*command, "--overwrite") == 0
        for one, two in zip(
            *(read(tmp_path / name / "validation-00000-of-00001") for name in ("kit", "out")),
            strict=True,
        ):
            assert one["image/class/label"] == two["image/class/label"]
    assert find_source(out, "train").class_names == WNIDS
    for text, words in (
        ("\n".join(truth[:-1]), "holds 9 images, and there are labels for 8"),
        ("\n".join([*truth[:-1], "n99999999"]), "name n99999999, which is not a class"),
        ("tench\n", "expected a wnid"),
        ("a.JPEG n01440764\n", "does not name ILSVRC2012_val_00000001.JPEG"),
    ):
        labels.write_text(text)
        assert prepare(*command) == 2
        assert words in capsys.readouterr().err


def test_damaged_tars(tars, tmp_path, capsys):
    command = ("imagenet", "--data_dir", tars, "--out", tmp_path / "out", "--workers", 1)
    train = tars / "ILSVRC2012_img_train.tar"
    whole = train.read_bytes()
    train.write_bytes(whole[:700])
    assert prepare(*command) == 2
    assert f"{train}: not a whole tar file" in capsys.readouterr().err
    train.write_bytes(tar_of([("readme.txt", b"hello")]))
    assert prepare(*command) == 2
    assert "expected tars such as n01440764.tar in it, found readme.txt" in capsys.readouterr().err
    train.write_bytes(whole)
    (tars / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of([("a", b"")], "w:gz"))
    assert prepare(*command) == 2
    assert "not the ILSVRC2012 development kit" in capsys.readouterr().err
    assert prepare("imagenet", "--data_dir", tmp_path, "--out", tmp_path / "out") == 2
    assert "holds neither ILSVRC2012_img_train.tar" in capsys.readouterr().err


def test_names_of_classes():
    assert class_names(["n1", "n2"], {"n1": "a, b", "n2": "c"}) == ["a", "c"]
    assert class_names(["n1", "n2"], {}) == ["n1", "n2"]


# ---- TFDS, verify, index ------------------------------------------------------------------------


def test_tfds_to_shards(tmp_path, capsys):
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
    assert prepare("tfds", "other", "--data_dir", tmp_path / "tfds", "--out", out) == 2
    assert "not prepared" in capsys.readouterr().err


def test_download_needs_tfds(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    command = ("tfds", "mnist", "--data_dir", tmp_path, "--download")
    assert prepare(*command) == 2
    assert "Install it with: pip install" in capsys.readouterr().err


def test_verify(photos, tmp_path, capsys, caplog):
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
    content[places[7] + 1] ^= 1  # a header
    path.write_bytes(content[: places[28] + 50])  # the last but one is cut, the last is gone
    assert prepare("verify", "--data_dir", out, "--workers", 1, "--json") == 1
    assert "60 examples were written to the train split and 59 are there" in caplog.text
    report = json.loads(capsys.readouterr().out)
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
def test_verify_in_several_processes(photos):
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


def test_index(photos, tmp_path, capsys):
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
    assert find_source(out, "train").num_examples == 60  # not mistaken for data
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.idx")}
    assert prepare("index", "--data_dir", out) == 0
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.idx")}
    assert prepare("index", "--data_dir", out, "--out", tmp_path / "elsewhere") == 0
    assert len(list((tmp_path / "elsewhere").glob("*.idx"))) == 4
    assert prepare("index", "--data_dir", photos) == 2
    assert "holds no TFRecord files" in capsys.readouterr().err


def test_examples_are_those_of_protobuf():
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


def test_checksum_by_numpy_alone():
    rng = np.random.default_rng(0)
    for size in (0, 1, 1023, 1024, 1025, 70_001):
        data = rng.bytes(size)
        by_rows = crc.masked_rows(np.frombuffer(data, np.uint8)[None])[0]
        assert crc._mask(crc._by_numpy(data)) & 0xFFFFFFFF == by_rows


def test_help_is_quick_and_without_tensorflow():
    code = (
        "import sys\n"
        "from dataloader.prepare.__main__ import main\n"
        "for command in ['digits', 'folder', 'tfds', 'imagenet', 'verify', 'index']:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'tensorflow', 'PIL', 'scipy', 'sklearn', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_interrupted(photos, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dataloader.prepare.pack.make_shard", stop)
    assert prepare("folder", "--data_dir", photos, "--out", tmp_path / "out", "--workers", 1) == 130
    assert "goes on where this one stopped" in capsys.readouterr().err


def test_a_full_disk_is_an_error_and_leaves_no_shard(photos, small_disk, capsys):
    for i in range(400):
        noise = np.random.default_rng(i).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(photos / "train" / "ant" / f"noise{i}.png")
    command = ("folder", "--data_dir", photos, "--out", small_disk / "out", "--workers", 1)
    assert prepare(*command) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list((small_disk / "out").glob("train-*"))
    with pytest.raises(DataError):
        find_source(small_disk / "out", "train")
