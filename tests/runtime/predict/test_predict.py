"""`--mode predict` with a trained model, on folders of images, some of them odd or broken."""

import json
import math
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from convoy.runtime.data.class_names import class_names, imagenet_classes
from convoy.utils.errors import ConfigError
from main import main
from tests.runtime.logits import softmax


def test_imagenets_class_names_are_unique_and_in_keras_order():
    """`keras.applications` numbers the 1,000 classes in the order of their synset ids."""
    ids, names = list(imagenet_classes()), list(imagenet_classes().values())
    assert len(set(names)) == len(ids) == 1000
    assert ids == sorted(ids)
    assert [names[i] for i in (0, 281, 985)] == ["tench", "tabby", "daisy"]
    assert class_names(None, 1000) == names
    assert class_names(ids[5:8], 3) == names[5:8]
    assert class_names(["cat", *ids[1:]], 1000)[:2] == ["cat", ids[1]]


def test_a_label_file_names_the_classes(tmp_path):
    file = tmp_path / "labels.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):  # the latter two come from Windows
        file.write_text("cat\n gro\u0308ße \n\n", encoding=encoding)
        assert class_names(["a", "b"], 2, file) == ["cat", "größe"]
    with pytest.raises(ConfigError, match="has 2 lines, and the model has 3 classes"):
        class_names(None, 3, file)
    file.write_text("cat")
    with pytest.raises(ConfigError, match="has 1 line, and the model has 3 classes"):
        class_names(None, 3, file)
    file.write_text('{"0": "cat", "1": "dog"}')
    with pytest.raises(ConfigError, match=r"is not a list of lines.*a text file with one name a"):
        class_names(None, 2, file)
    file.write_text("cat\n\ndog\n")
    with pytest.raises(ConfigError, match=r"--label_file .*labels\.txt: line 2 is empty"):
        class_names(None, 3, file)
    file.write_bytes(b"cat\nk\xe4fer\n")
    with pytest.raises(ConfigError, match=r"line 2 has the byte 0xe4.*save it as UTF-8"):
        class_names(None, 2, file)


def test_unprintable_class_names_of_old_checkpoints_are_escaped():
    names = [os.fsdecode(b"k\xe4fer"), "lo\u0308we\n"]
    assert class_names(names, 2) == ["k\\xe4fer", "löwe\\n"]


def test_classes_without_a_name_are_called_by_their_number():
    assert class_names(["cat", "dog"], 3) == ["cat", "dog", "2"]
    assert class_names(None, 2) == ["0", "1"]
    assert class_names(["a", "b", "c"], 2) == ["a", "b"]


def test_every_image_of_a_folder_is_labelled(predict, photos, tmp_path):
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    jpegs = sorted(photos.iterdir())
    shutil.copy(jpegs[0], folder / "one.JPG")
    shutil.copy(jpegs[1], folder / "deep" / "two.jpeg")
    Image.open(jpegs[2]).save(folder / "deep" / "er" / "three.PNG")
    Image.open(jpegs[3]).convert("L").save(folder / "grey.jpg")
    Image.open(jpegs[4]).resize((300, 20)).save(folder / "wide.png")
    Image.open(jpegs[5]).convert("RGBA").save(folder / "alpha.png")
    code, rows, table, text = predict(folder)
    assert code == 0
    assert len(rows) == 6
    assert all(row["error"] is None and len(row["predictions"]) == 5 for row in rows)
    assert list(table[0])[:3] == ["path", "class_1", "probability_1"]
    assert all(name in text for name in ("one.JPG", "deep/two.jpeg", "deep/er/three.PNG"))
    assert "6 images labelled, 0 unreadable" in text


def test_an_unreadable_image_has_a_row_with_its_error_and_others_are_labelled(
    predict, photos, tmp_path
):
    folder = tmp_path / "in"
    shutil.copytree(photos, folder)
    good = len(list(folder.iterdir()))
    whole = next(photos.iterdir()).read_bytes()
    bad = {
        "broken.jpg": b"\xff\xd8\xff\xe0 this is no picture",
        "cut.jpg": whole[: len(whole) // 3],
        "empty.png": b"",
        "text.jpeg": b"hello",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    code, rows, table, text = predict(folder)
    assert code == 3
    failed = {row["path"].rsplit("/", 1)[-1]: row for row in rows if row["error"]}
    assert set(failed) == {*bad, "gone.jpg", "pipe.jpg"}
    assert "not a picture of a kind that is read" in failed["text.jpeg"]["error"]
    assert failed["pipe.jpg"]["error"] == "not a regular file"
    for row in failed.values():
        assert row["predictions"] == []
        assert "\n" not in row["error"]
        assert "{{" not in row["error"]
    assert sum(not row["error"] and bool(row["class_1"]) for row in table) == good
    assert f"{good} images labelled, {len(failed)} unreadable" in text
    assert f"{len(failed)} of {good + len(failed)} images could not be read" in text
    assert all(name in text for name in failed)


def test_images_that_fail_before_the_first_label_have_rows_in_their_place(
    predict, photos, tmp_path
):
    shutil.copytree(photos, tmp_path / "in")
    (tmp_path / "in" / "-first.jpg").write_bytes(b"no")
    code, rows, table, _ = predict(tmp_path / "in", "--predict_batch_size", "1")
    assert (code, len(table)) == (3, 13)
    assert [bool(row["error"]) for row in rows] == [True] + 12 * [False]


def test_odd_file_names_survive_in_every_output(predict, photos, tmp_path):
    names = [
        "a b.jpg",
        'quote".jpg',
        "comma,.jpg",
        "line\nbreak.jpg",
        "größe 数字.jpg",
        "[red].jpg",
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    for name, photo in zip(names, sorted(photos.iterdir()), strict=False):
        shutil.copy(photo, folder / name)
    code, rows, table, text = predict(folder)
    assert code == 0
    want = sorted(str(folder / name) for name in names)
    assert [row["path"] for row in rows] == want
    assert [row["path"] for row in table] == want
    assert "größe 数字.jpg" in text
    assert "[red].jpg" in text


def test_a_file_name_that_is_not_utf8_is_in_every_output(predict, photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(next(photos.iterdir()), os.fsencode(folder) + b"/caf\xe9.jpg")
    code, rows, table, text = predict(folder)
    assert code == 0
    assert os.fsencode(rows[0]["path"]) == os.fsencode(folder) + b"/caf\xe9.jpg"
    assert "caf\\udce9.jpg" in table[0]["path"]
    assert "caf\\xe9.jpg" in text


def test_probabilities_are_the_softmax_of_the_evaluations_logits(predict, trained, photos):
    """The reference decodes as evaluation does and takes the softmax of the model's logits."""
    import tensorflow as tf

    from convoy.dataloader.images.crops import eval_decode
    from convoy.dataloader.images.eval_crop import EvalCrop
    from convoy.runtime.builders.trained_model import load_model

    code, rows, table, _ = predict(photos, "--top_k", "10", "--predict_batch_size", "5")
    assert code == 0
    model, _ = load_model(trained.model_dir)
    for row, cells in zip(rows, table, strict=True):
        with open(row["path"], "rb") as file:
            image = eval_decode(tf.constant(file.read()), 32, EvalCrop())
        want = softmax(model(image[None], training=False))[0]
        got = {p["index"]: p["probability"] for p in row["predictions"]}
        assert math.fsum(got.values()) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose([got[i] for i in range(10)], want, atol=1e-5)
        order = [p["probability"] for p in row["predictions"]]
        assert order == sorted(order, reverse=True)
        assert float(cells["probability_1"]) == pytest.approx(order[0], abs=1e-6)
        assert cells["class_1"] == row["predictions"][0]["class"]


def test_predictions_have_the_class_names_of_labels_txt(
    trained, tiny, photos, writers, tmp_path, convoy
):
    """The names come from the data that the model was trained on."""
    names = [f"número {i}" for i in range(10)]
    examples = writers.digits(40)
    data = writers.dataset(tmp_path / "data", examples[:20], examples[20:], names=names)
    flags = ("--arch", "efficientnet-test", "--max_epochs", "1", "--warmup_epochs", "0")
    flags += ("--no-training_report",)
    model_dir = tmp_path / "run"
    folders = ("--data_dir", data, "--model_dir", model_dir)
    assert main([str(arg) for arg in (*flags, *folders)]) == 0
    args = ("--mode", "prediction", "--model_dir", model_dir, "--to_predict", photos)
    assert main([str(arg) for arg in args]) == 0
    lines = (model_dir / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        for prediction in json.loads(line)["predictions"]:
            assert prediction["class"] == names[prediction["index"]]


def test_top_k_is_bounded_by_the_number_of_classes(predict, photos):
    _, rows, _, _ = predict(photos, "--top_k", "99")
    assert len(rows[0]["predictions"]) == 10


def test_a_single_image_prints_one_line(trained, photos, tmp_path, capsys):
    photo = next(photos.iterdir())
    flags = ["--mode", "predict", "--model_dir", str(trained.model_dir), "--top_k", "2"]
    assert main([*flags, "--image", str(photo)]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(rf"{re.escape(str(photo))}: \d \d+\.\d%, \d \d+\.\d%\n", out)
    os.mkfifo(pipe := tmp_path / "pipe.jpg")
    assert main([*flags, "--image", str(pipe), "--min_confidence", "1"]) == 1
    assert capsys.readouterr().out == f"{pipe}: unreadable: not a regular file\n"


def test_predict_follows_the_flags_for_size_crop_mirroring_and_confidence(predict, trained, photos):
    """The reference averages the middle half, at another size, with its mirror image."""
    import tensorflow as tf

    from convoy.dataloader.images.crops import eval_decode
    from convoy.dataloader.images.eval_crop import EvalCrop
    from convoy.runtime.builders.trained_model import load_model

    flags = ("--image_size", "48", "--crop_pct", "0.5", "--flip_tta", "--top_k", "10")
    _, rows, _, text = predict(photos, *flags, "--min_confidence", "0.1")
    model, _ = load_model(trained.model_dir, image_size=48)
    left_out = 0
    for row in rows:
        with open(row["path"], "rb") as file:
            image = eval_decode(tf.constant(file.read()), 48, EvalCrop(padding=48))
        both = np.stack([image, np.flip(image, 1)])
        want = softmax(model(both, training=False)).mean(0)
        got = {p["index"]: p["probability"] for p in row["predictions"]}
        assert set(got) == set(np.flatnonzero(want >= 0.1))
        np.testing.assert_allclose([want[i] for i in got], list(got.values()), atol=1e-5)
        left_out += len(want) - len(got)
    assert left_out
    _, rows, table, text = predict(photos, "--min_confidence", "1")
    assert all(row["predictions"] == [] and row["error"] is None for row in rows)
    assert all(row["class_1"] == row["error"] == "" for row in table)
    assert f"{len(rows)} below --min_confidence 1" in text


def test_a_folder_without_images_is_an_error(trained, tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    args = ["--mode", "predict", "--model_dir", trained.model_dir, "--predict_dir", tmp_path]
    assert main([str(arg) for arg in args]) == 2
    assert "holds no images" in capsys.readouterr().err


class Diverged:
    """A model of two classes whose first logit is -inf, NaN or inf for some grey levels."""

    input_shape, output_shape = (None, 8, 8, 3), (None, 2)
    compute_dtype = "float32"

    def __call__(self, images, training):
        import tensorflow as tf

        level = tf.cast(images[:, 0, 0, 0], tf.float32)
        first = tf.where(level < 50, -np.inf, tf.where(level < 100, np.nan, level))
        first = tf.where(level > 200, np.inf, first)
        return tf.stack([first, tf.zeros_like(first)], 1)


@pytest.mark.parametrize("flip", [False, True])
def test_an_answer_that_is_not_finite_is_told_in_the_row(tmp_path, flip):
    """A softmax would make an ordinary 0 of -inf."""
    from convoy.runtime.builders.trained_model import Trained
    from convoy.runtime.predict.labeller import Labeller
    from convoy.runtime.predict.outputs import NOT_FINITE, one_line
    from convoy.runtime.predict.tensorflow_engine import TensorflowEngine
    from convoy.runtime.settings.config import Config

    files = [tmp_path / f"{level}.png" for level in (0, 60, 120, 255)]
    for file in files:
        Image.new("RGB", (8, 8), (int(file.stem),) * 3).save(file)
    config = Config(flip_tta=flip, predict_batch_size=8)
    engine = TensorflowEngine(Trained(Diverged(), ""), config)
    items = list(Labeller(engine, ["a", "b"], config).label(files))
    assert [item.error for item in items] == [NOT_FINITE, NOT_FINITE, None, NOT_FINITE]
    assert [len(item.predictions) for item in items] == [0, 0, 2, 0]
    assert "no answer: the model's answer is not a number" in one_line(items[0])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--predict_dir", "nowhere"], "--predict_dir nowhere does not exist"),
        ([], "--mode predict needs --predict_dir"),
        (["--image", "x.jpg"], "--image x.jpg does not exist"),
        (["--image", ".", "--predict_dir", "."], "give one of them"),
        (["--image", "tests"], "--image tests is a folder: label it with --predict_dir"),
        (["--predict_dir", ".", "--label_file", "nowhere"], "--label_file nowhere does not exist"),
        (["--predict_dir", ".", "--predict_formats", "xml"], "choose from table, jsonl"),
        (["--predict_dir", ".", "--checkpoint", "nowhere"], "--checkpoint nowhere does not exist"),
    ],
)
def test_missing_inputs_of_predict_are_refused_with_their_flag(trained, capsys, args, message):
    with pytest.raises(SystemExit) as exit_:
        main(["--mode", "predict", "--model_dir", str(trained.model_dir), *args])
    assert exit_.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


MEMORY = """
import resource, sys
sys.path.insert(0, {root!r})
from main import main
from tests.runtime.csv_rows import csv_rows
from tests.runtime.logits import softmax
assert main(sys.argv[1:]) == 0
print("peak KiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_memory_of_predict_does_not_grow_with_the_number_of_images(
    convoy, trained, photos, tmp_path, script
):
    """10,000 images may take 15 MB more than 2,500, which fill a page of the gallery too. Keeping
    the 7,500 images would take 26 MB for pixels alone, and more for thumbnails and rows.
    """
    peaks = []
    program = script(MEMORY.format(root=os.getcwd()))
    sources = sorted(photos.iterdir())
    for count in (2500, 10_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            os.link(sources[i % len(sources)], folder / f"{i:05}.jpg")
        flags = ("--mode", "predict", "--model_dir", trained.model_dir, "--predict_dir", folder)
        flags += ("--predict_formats", "table,jsonl,csv,gallery", "--output", tmp_path / "out")
        done = convoy(*flags, script=program)
        assert f"{count} images labelled, 0 unreadable" in done.out
        peaks.append(int(re.search(r"peak KiB (\d+)", done.out)[1]) / 1024)
    assert peaks[1] - peaks[0] < 15
    assert len(list(tmp_path.glob("out-gallery*.html"))) == 5
