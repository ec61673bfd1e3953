"""Labels from an ONNX file, in a process that never imports TensorFlow.

The networks are small: their logits are the mean colour of the model's view times a matrix.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.plain.square import eval_square
from convoy.runtime.command_line.cli import parse
from convoy.runtime.runner import Runner
from main import main
from tests.onnx_bytes import FLOAT, metadata, network
from tests.runtime.csv_rows import csv_rows
from tests.runtime.predict.without_tensorflow import without_tensorflow

pytest.importorskip("onnxruntime", reason="the extra predict, part of dev")

WEIGHTS = np.random.default_rng(0).normal(size=(3, 4)) / 40
NAMES = ("red", "green", "blue", "grey")
ABOUT = metadata(classes=NAMES)


@pytest.fixture
def exported(tmp_path):
    """Writes an ONNX file as into the folder of an export; returns its path."""

    def write(content=None, **changes):
        folder = tmp_path / "export"
        folder.mkdir(exist_ok=True)
        content = network(WEIGHTS, about=ABOUT, **changes) if content is None else content
        (folder / "model.onnx").write_bytes(content)
        return folder / "model.onnx"

    return write


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 40 pictures of several kinds and sizes, and some that are none."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    for i in range(40):
        small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
        tags = Image.Exif()
        tags[0x0112] = i % 8 + 1
        image = small.resize((40 + i, 70 - i), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:02}{('.jpg', '.png', '.webp')[i % 3]}", exif=tags)
    (folder / "cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:300])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    os.mkfifo(folder / "pipe.jpg")
    return folder


def predict(*flags):
    """Runs `--mode predict` in this process; returns its figures."""
    return Runner(parse(["--mode", "predict", *map(str, flags)])).run()


def by_hand(file, crop=None, size=32):
    """Returns the probabilities of a picture, float64 `(4,)`."""
    view = eval_square(file.read_bytes(), size, crop or EvalCrop(8, exif_orientation="apply"))
    powers = np.exp(view.mean((0, 1)) @ WEIGHTS)
    return powers / powers.sum()


def rows_of(folder, name="predictions"):
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_labels(rows, crop=None):
    for row in rows:
        if row["error"] is None:
            want = by_hand(Path(row["path"]), crop)
            assert [p["index"] for p in row["predictions"]] == np.argsort(-want).tolist()
            assert [p["class"] for p in row["predictions"]] == [NAMES[i] for i in np.argsort(-want)]
            got = [p["probability"] for p in row["predictions"]]
            np.testing.assert_allclose(got, np.sort(want)[::-1], atol=1e-5)


@pytest.mark.parametrize("named", ["the file", "its folder", "as model_dir"])
def test_a_folder_of_pictures_is_labelled_without_tensorflow(exported, pictures, tmp_path, named):
    file = exported()
    flags = {
        "the file": ["--pretrained_from_file", file, "--output", tmp_path / "out"],
        "its folder": ["--pretrained_from_file", file.parent, "--output", tmp_path / "out"],
        "as model_dir": ["--model_dir", file.parent],
    }[named]
    flags += ["--predict_dir", pictures, "--predict_formats", "table,jsonl,csv,gallery"]
    done = without_tensorflow("--mode", "predict", *flags)
    assert done.returncode == 3, done.stderr
    assert "made of step-00000014 (raw weights, epoch 2), in ONNX Runtime" in done.stdout
    assert "40 images labelled, 4 unreadable" in done.stdout
    folder, name = (tmp_path, "out") if named != "as model_dir" else (file.parent, "predictions")
    rows = rows_of(folder, name)
    assert_labels(rows)
    assert sum(row["error"] is None for row in rows) == 40
    table = csv_rows(folder / f"{name}.csv")
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    page = folder / ("gallery.html" if named == "as model_dir" else "out-gallery.html")
    assert page.read_text().count("data:image/jpeg") == 40


def test_one_picture_gets_one_line(exported, pictures, capsys):
    flags = ["--pretrained_from_file", str(exported()), "--top_k", "2"]
    picture = pictures / "01.png"
    assert main(["--mode", "predict", *flags, "--image", str(picture)]) == 0
    best, second = np.argsort(-by_hand(picture))[:2]
    want = by_hand(picture)
    line = f"{picture}: {NAMES[best]} {100 * want[best]:.1f}%, {NAMES[second]} "
    printed = capsys.readouterr()
    assert printed.out.startswith(line)
    assert (printed.out.count("\n"), printed.err) == (1, "")


@pytest.mark.parametrize("batch", ["1", "3", "64", "auto"])
@pytest.mark.parametrize("threads", [[], ["--intraop_threads", "2"]])
def test_labels_do_not_depend_on_batch_and_threads(exported, pictures, tmp_path, batch, threads):
    flags = ["--pretrained_from_file", exported(), "--predict_dir", pictures, *threads]
    figures = predict(*flags, "--output", tmp_path / "out", "--predict_batch_size", batch)
    assert (figures["images"], figures["failed"]) == (40, 4)
    rows = rows_of(tmp_path, "out")
    assert [row["path"] for row in rows] == sorted(str(file) for file in pictures.iterdir())
    assert_labels(rows)


def test_an_export_is_applied_like_the_program_that_it_names(exported, pictures, tmp_path):
    crop = EvalCrop(0, "squash", "nearest", arithmetic="pillow")
    about = metadata(classes=NAMES, like="keras")
    about["preprocessing"]["crop"] |= crop.to_dict()
    flags = ["--pretrained_from_file", exported(network(WEIGHTS, about=about))]
    predict(*flags, "--predict_dir", pictures, "--output", tmp_path / "out")
    assert_labels(rows_of(tmp_path, "out"), crop)


def test_flags_for_the_crop_and_mirror_images_are_followed(exported, pictures, tmp_path):
    flags = ["--pretrained_from_file", exported(), "--predict_dir", pictures]
    flags += ["--output", tmp_path / "out", "--flip_tta"]  # the mean colour of a mirror image
    predict(*flags, "--crop_padding", "32", "--eval_crop", "resize", "--exif_orientation", "ignore")
    assert_labels(rows_of(tmp_path, "out"), EvalCrop(32, "resize"))
    predict(*flags, "--evaluation_like", "torchvision")
    assert_labels(rows_of(tmp_path, "out"), EvalCrop(8, "resize", arithmetic="pillow"))
    predict(*flags, "--interpolation", "bicubic")
    assert_labels(
        rows_of(tmp_path, "out"), EvalCrop(8, "crop", "bicubic", exif_orientation="apply")
    )


def test_a_label_file_replaces_the_names(exported, pictures, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    flags = ["--pretrained_from_file", exported(), "--output", tmp_path / "out"]
    predict(*flags, "--predict_dir", pictures, "--label_file", tmp_path / "names.txt")
    found = {p["class"] for row in rows_of(tmp_path, "out") for p in row["predictions"]}
    assert found == {"a", "b", "c", "d"}


def test_an_answer_that_is_not_finite_has_no_label(exported, pictures, tmp_path, capsys):
    exported(network(np.full((3, 4), np.nan), about=ABOUT))
    flags = ["--model_dir", tmp_path / "export", "--predict_dir", pictures]
    assert predict(*flags)["images"] == 0
    assert "not a number" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "export" / "predictions.jsonl").exists()


CASES = {
    "Convoy did not export it": network(WEIGHTS),
    "does not say how to prepare": network(WEIGHTS, about=metadata(preprocessing={})),
    "is cut short": network(WEIGHTS, about=ABOUT)[:-40],
    "is not an ONNX file": b"\x89PNG\r\n\x1a\n",
    r"cannot load it: ONNX Runtime only .* Opset 99 is under development": network(
        WEIGHTS, about=ABOUT, opset=99
    ),
    r"takes pixels tensor\(uint8\) \['batch', 32, 32, 3\], and not images of uint8 \(32, 32, 3\)": (
        network(WEIGHTS, about=ABOUT, images="pixels")
    ),
    r"takes images tensor\(float\)": network(WEIGHTS, about=ABOUT, kind=FLOAT),
    r"takes images tensor\(uint8\) \['batch', 3, 32, 32\]": (
        network(np.ones((32, 4)), about=ABOUT, shape=(3, 32, 32))
    ),
    "cannot load it: .* No Op registered for MatNul": (
        network(WEIGHTS, about=ABOUT).replace(b"MatMul", b"MatNul")
    ),
    "names 2 classes, and gives 4 logits": network(WEIGHTS, about=metadata()),
    "needs images resized by lanczos3": network(
        WEIGHTS,
        about=metadata(
            preprocessing=ABOUT["preprocessing"]
            | {"crop": ABOUT["preprocessing"]["crop"] | {"interpolation": "lanczos3"}}
        ),
    ),
}


@pytest.mark.parametrize("words", CASES)
def test_an_unusable_file_is_refused_in_one_line(exported, pictures, words, capsys):
    file = exported(CASES[words])
    for flags in (["--pretrained_from_file", file], ["--model_dir", file.parent]):
        said = refused(capsys, *flags, "--predict_dir", pictures)
        assert re.search(words, said), said
        assert str(file) in said
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.onnx"]


def refused(capsys, *flags):
    """Runs `--mode predict`, which must end with code 2 and one message; returns the message."""
    try:
        code = main(["--mode", "predict", *map(str, flags)])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("convoy: ")
    assert "Traceback" not in said
    return " ".join(said.split())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--engine", "tensorflow"], "--engine tensorflow applies checkpoints and weight files"),
        (["--image_size", "48"], "--image_size 48: .* takes images of 32 px: export again"),
        (["--weights", "ema"], "--weights ema: .* was made of step-00000014"),
        (["--arch", "resnet18"], "--arch resnet18: .* is efficientnet-test"),
        (["--engine", "quick"], "--engine takes"),
    ],
)
def test_flags_that_do_not_fit_the_file_are_refused(exported, pictures, flags, words, capsys):
    said = refused(capsys, "--pretrained_from_file", exported(), "--predict_dir", pictures, *flags)
    assert re.search(words, said), said


def test_without_onnx_runtime_the_extra_is_named(exported, pictures, capsys, monkeypatch):
    monkeypatch.setattr("convoy.runtime.predict.choice.find_spec", lambda name: None)
    said = refused(capsys, "--model_dir", exported().parent, "--predict_dir", pictures)
    assert "ONNX Runtime is not installed: pip install" in said
    assert "predict" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("std::bad_alloc", r"out of memory in --mode predict: lower --predict_batch_size"),
        ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : no luck.", "convoy: ONNX Runtime: no luck"),
    ],
)
def test_an_error_at_work_ends_with_1(exported, pictures, capsys, monkeypatch, text, words):
    def run(*_):
        raise OSError(text)

    monkeypatch.setattr("onnxruntime.InferenceSession.run", run)
    flags = ["--model_dir", exported().parent, "--predict_dir", pictures]
    assert main(["--mode", "predict", *map(str, flags)]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
