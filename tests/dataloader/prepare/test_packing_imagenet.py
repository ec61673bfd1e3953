"""`dataloader.prepare imagenet`, on small tar files in the original form."""

import io
import tarfile

import numpy as np
import pytest

from convoy.dataloader.prepare.imagenet import class_names, read_devkit
from convoy.dataloader.sources.find import find_source
from tests.dataloader.packing import encoded, picture, prepare, read

WNIDS = ["n01440764", "n01443537", "n02012849", "n03126707"]
WORDS = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane"]
IDS = [3, 1, 4, 2]  # the development kit numbers classes in its own order


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
    """The three files of ILSVRC2012 in small: 4 classes of 5 images, and 9 validation images."""
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


def test_prepare_imagenet_packs_every_image_with_its_class(tars, tmp_path, capsys):
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


def test_prepare_imagenet_accepts_a_file_of_validation_labels(tars, tmp_path, capsys):
    kit = tars / "ILSVRC2012_devkit_t12.tar.gz"
    _, truth = read_devkit(str(kit))
    prepare("imagenet", "--data_dir", tars, "--out", tmp_path / "kit", "--workers", 1)
    kit.unlink()
    out, labels = tmp_path / "out", tmp_path / "labels.txt"
    command = ("imagenet", "--data_dir", tars, "--out", out, "--workers", 1)
    assert prepare(*command) == 2
    assert (
        "put it there too, or give a file with one wnid per line as --val_labels"
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
        ("\n".join(truth[:-1]), "holds 9 images, but there are labels for 8"),
        ("\n".join([*truth[:-1], "n99999999"]), "name n99999999, which is not a class"),
        ("tench\n", "expected a wnid"),
        ("a.JPEG n01440764\n", "does not name ILSVRC2012_val_00000001.JPEG"),
    ):
        labels.write_text(text)
        assert prepare(*command) == 2
        assert words in capsys.readouterr().err


def test_damaged_tar_files_are_refused_with_the_reason(tars, tmp_path, capsys):
    command = ("imagenet", "--data_dir", tars, "--out", tmp_path / "out", "--workers", 1)
    train = tars / "ILSVRC2012_img_train.tar"
    whole = train.read_bytes()
    train.write_bytes(whole[:700])
    assert prepare(*command) == 2
    assert f"{train}: not a complete tar file" in capsys.readouterr().err
    train.write_bytes(tar_of([("readme.txt", b"hello")]))
    assert prepare(*command) == 2
    assert "expected tars such as n01440764.tar in it, found readme.txt" in capsys.readouterr().err
    train.write_bytes(whole)
    (tars / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of([("a", b"")], "w:gz"))
    assert prepare(*command) == 2
    assert "not the ILSVRC2012 development kit" in capsys.readouterr().err
    assert prepare("imagenet", "--data_dir", tmp_path, "--out", tmp_path / "out") == 2
    assert "holds neither ILSVRC2012_img_train.tar" in capsys.readouterr().err


def test_class_names_are_the_first_words_or_the_wnids():
    assert class_names(["n1", "n2"], {"n1": "a, b", "n2": "c"}) == ["a", "c"]
    assert class_names(["n1", "n2"], {}) == ["n1", "n2"]
