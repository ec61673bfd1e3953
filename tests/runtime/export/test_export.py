"""Exported files give the Keras model's results; a file whose results differ is deleted."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from convoy.runtime.export.formats import FORMATS, Format, export_formats
from convoy.utils.errors import ConfigError
from main import main
from tests.runtime.logits import softmax


def export(trained, output, *args):
    """Runs `--mode export` in this process; returns its exit code."""
    flags = ("--mode", "export", "--model_dir", trained.model_dir, "--output", output)
    return main([str(arg) for arg in (*flags, *args)])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, writers):
    """A folder of 310 JPEGs of several sizes, one of them broken."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, (pixels, _) in enumerate(writers.digits(310)):
        (folder / f"{i:03}.jpg").write_bytes(writers.jpeg(pixels[: 40 - i % 7]))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder


def by_hand(trained, files, weights="auto"):
    """Returns the encoded files, the images decoded as in evaluation, and the Keras model's
    probabilities.
    """
    import tensorflow as tf

    from convoy.dataloader.images.crops import eval_decode
    from convoy.dataloader.images.eval_crop import EvalCrop
    from convoy.runtime.builders.trained_model import load_model

    model, _ = load_model(trained.model_dir, weights)
    encoded = [file.read_bytes() for file in files]
    images = np.stack([eval_decode(tf.constant(e), 32, EvalCrop()).numpy() for e in encoded])
    return encoded, images, softmax(model(images, training=False))


def test_a_savedmodel_gives_the_same_results_for_encoded_bytes_and_pixels(
    trained, pictures, tmp_path, capsys
):
    import tensorflow as tf

    out = tmp_path / "out"
    flags = ("--predict_dir", pictures, "--top_k", "3", "--export_backbone", "--weights", "raw")
    assert export(trained, out, *flags) == 0
    assert "top-1 agreement 100.00%" in capsys.readouterr().out
    encoded, images, want = by_hand(trained, sorted(pictures.glob("0*.jpg"))[:5], "raw")
    served = tf.saved_model.load(str(out / "savedmodel" / "1")).signatures
    for got in (
        served["serving_default"](image_bytes=tf.constant(encoded)),
        served["images"](images=tf.constant(images)),
    ):
        np.testing.assert_allclose(got["probabilities"], want, atol=1e-5)
        order = np.argsort(-want)[:, :3]
        assert [[int(name) for name in row] for row in got["classes"].numpy()] == order.tolist()
        np.testing.assert_allclose(got["scores"], np.take_along_axis(want, order, 1), atol=1e-5)
        assert got["features"].shape[0] == 5
    said = json.loads((out / "export.json").read_text())
    inside = (out / "savedmodel" / "1" / "assets.extra" / "metadata.json").read_text()
    assert str(trained.model_dir.parents[1]) not in inside + json.dumps(said)
    assert (said["arch"], said["weights"]) == ("efficientnet-test", "raw")
    assert said["classes"] == [str(i) for i in range(10)]
    assert said["preprocessing"]["crop"]["padding"] == 32
    assert said["training"]["lr_init"] == 0.05
    assert said["formats"]["savedmodel"]["images"] == 310
    assert said["formats"]["savedmodel"]["max_logit_difference"] <= 1e-3
    names = ["export.json", "model_card.md", "savedmodel"]
    assert sorted(path.name for path in out.iterdir()) == names
    card = (out / "model_card.md").read_text()
    assert "on 53 validation images, each counted once" in card
    assert "training images: 97" in card
    with pytest.raises(SystemExit):
        export(trained, out, *flags)
    assert "exists already: replace it with --overwrite" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.slow
def test_a_tflite_file_takes_any_batch_size_and_contains_its_labels(trained, pictures, tmp_path):
    assert export(trained, tmp_path, "--predict_dir", pictures, "--export_format", "tflite") == 0
    _, images, want = by_hand(trained, sorted(pictures.glob("0*.jpg"))[:7])
    runner = lite(tmp_path / "model.tflite")
    for some in (images, images[:1]):
        got = runner(images=some)
        np.testing.assert_allclose(got["probabilities"], want[: len(some)], atol=1e-5)
        assert [int(name) for name in got["classes"][:, 0]] == want[: len(some)].argmax(-1).tolist()
    with zipfile.ZipFile(tmp_path / "model.tflite") as archive:
        assert archive.read("labels.txt").split() == [str(i).encode() for i in range(10)]
        assert json.loads(archive.read("metadata.json"))["arch"] == "efficientnet-test"


@pytest.mark.slow
def test_an_int8_file_is_kept_only_if_top1_agrees_on_95_percent(trained, pictures, tmp_path):
    """After 14 steps of training the classes are so close that either outcome is possible."""
    data = trained.flags[-2:]  # calibrated on training images
    code = export(
        trained, tmp_path, "--predict_dir", pictures, "--export_format", "tflite-int8", *data
    )
    said = json.loads((tmp_path / "export.json").read_text())["formats"]["tflite-int8"]
    assert said["top1_agreement"] > 0.8
    assert said["passed"] is (said["top1_agreement"] >= 0.95)
    assert code == (0 if said["passed"] else 1)
    file = tmp_path / "model-int8.tflite"
    assert file.exists() is said["passed"]
    if said["passed"]:
        details = lite(file).get_input_details()["images"]
        assert (details["dtype"], details["quantization"]) == (np.uint8, (1.0, 0))


def lite(path):
    """Returns the function that runs a TensorFlow Lite file."""
    import tensorflow as tf

    with pytest.warns(UserWarning, match="LiteRT"):
        return tf.lite.Interpreter(str(path)).get_signature_runner("serve")


@pytest.mark.slow
def test_an_onnx_file_names_classes_and_contains_its_metadata(trained, pictures, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra export: make test-export")
    import onnxruntime
    from onnx.shape_inference import infer_shapes

    assert export(trained, tmp_path, "--predict_dir", pictures, "--export_format", "onnx") == 0
    _, images, want = by_hand(trained, sorted(pictures.glob("0*.jpg"))[:7])
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 32, 32, 3]
    probabilities, classes = session.run(["probabilities", "classes"], {"images": images})
    np.testing.assert_allclose(probabilities, want, atol=1e-5)
    assert classes[:, 0].tolist() == [str(i) for i in want.argmax(-1)]
    # ONNX's shape inference must keep the symbolic batch to the end: fusions need it.
    assert [output.shape[0] for output in session.get_outputs()] == ["batch"] * 4
    graph = infer_shapes(onnx.load(tmp_path / "model.onnx")).graph
    assert {v.type.tensor_type.shape.dim[0].dim_param for v in graph.value_info} == {"batch"}
    taken = {name for node in graph.node for name in node.input}
    assert {constant.name for constant in graph.initializer} <= taken
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["labels.txt"].split() == [str(i) for i in range(10)]
    assert json.loads(properties["metadata.json"])["arch"] == "efficientnet-test"


def sample(count, classes=10):
    """Returns a sample of images whose pixels do not matter, and random logits for them."""
    from convoy.runtime.export.sample_images import Sample

    logits = np.random.default_rng(0).normal(size=(count, classes)).astype(np.float32)
    pixels = [np.full((1, 1, 3), i % 251, np.uint8) for i in range(count)]
    return Sample([b""] * count, pixels, logits.argmax(-1).tolist()), {"logits": logits}


def runtime_giving(logits, names=None, share=1, score=1):
    """Returns a stand-in for a format's runtime that gives these logits batch by batch."""
    from convoy.runtime.export.export import _softmax

    given = iter(np.split(logits, range(32, len(logits), 32)))

    def run(images, encoded):
        part = next(given)
        assert len(part) == len(images)
        outputs = {"logits": part, "probabilities": _softmax(part) * share}
        outputs["scores"] = -np.sort(-_softmax(part))[:, :3] * score
        if names is not None:
            outputs["classes"] = np.array(names, object)[np.argsort(-part)]
        return outputs

    return run


def test_a_float_export_must_agree_in_classes_logits_probabilities_and_names():
    from convoy.runtime.export.export import compare

    images, reference = sample(300)
    names = [f"class {i}" for i in range(10)]
    logits, rules = reference["logits"], Format("x")

    def verdict(other, said=names, **spoilt):
        return compare([runtime_giving(other, said, **spoilt)], names, images, reference, rules)

    assert verdict(logits + np.float32(5e-4))["passed"]
    assert verdict(logits)["top1_accuracy"] == 1
    assert "a logit is off by 0.0" in verdict(logits + np.float32(2e-3))["reason"]
    wrong = logits.copy()
    wrong[-1] = -wrong[-1]  # in the short last batch
    assert verdict(wrong)["top1_agreement"] == pytest.approx(299 / 300)
    assert "top-1 agrees on 99.67%" in verdict(wrong)["reason"]
    nan = logits.copy()
    nan[7, logits[7].argmin()] = np.nan
    assert not verdict(nan)["passed"]
    assert "names other classes" in verdict(logits, names[::-1])["reason"]
    assert "a probability is off by 0.0" in verdict(logits, share=0.99)["reason"]
    assert "a probability is off by 0.0" in verdict(logits, score=1.01)["reason"]


def test_an_int8_export_must_agree_in_95_percent_of_classes_only():
    from convoy.runtime.export.export import compare

    images, reference = sample(300)
    for wrong, passed in ((15, True), (16, False)):
        logits = reference["logits"] * 1.3
        logits[:wrong] *= -1
        run = runtime_giving(logits)
        assert compare([run], [], images, reference, FORMATS["tflite-int8"])["passed"] is passed


@pytest.mark.slow
def test_an_export_with_other_logits_is_deleted_and_an_error(
    trained, pictures, tmp_path, monkeypatch, capsys
):
    """The classes agree, but every logit is 0.01 too large."""
    from convoy.runtime.export import writers as exporters

    whole = exporters.Serving.of_images

    def spoilt(self, images):
        outputs = whole(self, images)
        return outputs | {"logits": outputs["logits"] + 0.01}

    monkeypatch.setattr(exporters.Serving, "of_images", spoilt)
    assert export(trained, tmp_path, "--predict_dir", pictures) == 1
    assert "a logit is off by 0.01, and 0.001 is allowed" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "model_card.md"]
    said = json.loads((tmp_path / "export.json").read_text())["formats"]["savedmodel"]
    assert said["passed"] is False


@pytest.mark.slow
def test_export_json_keeps_an_entry_per_format_across_exports(
    trained, pictures, tmp_path, monkeypatch, capsys
):
    """A damaged export.json is replaced. A failed overwrite is recorded beside the kept file's
    entry.
    """
    passes = True

    def one(name, what, folder, sample, reference):
        file = folder / FORMATS[name].file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        numbers = {"bytes": 1, "top1_agreement": 1.0, "max_logit_difference": 1.2345e-05}
        others = {"max_feature_difference": 0.5, "top1_accuracy": 1.0, "reason": "bad"}
        return numbers | others | {"passed": passes}

    monkeypatch.setattr("convoy.runtime.export.export._export_one", one)
    (tmp_path / "export.json").write_text("{")
    flags = ("--predict_dir", pictures, "--export_format")
    assert export(trained, tmp_path, *flags, "savedmodel", "--weights", "raw") == 0
    assert export(trained, tmp_path, *flags, "tflite", "--weights", "ema") == 0
    passes = False
    again = (*flags, "savedmodel", "--overwrite", "--weights", "ema")
    assert export(trained, tmp_path, *again) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "Δ" in line]
    assert lines
    assert max(map(len, lines)) <= 80
    said = json.loads((tmp_path / "export.json").read_text())["formats"]
    first = said["savedmodel"]
    assert (said["tflite"]["weights"], first["weights"], first["passed"]) == ("ema", "raw", True)
    assert (first["last_attempt"]["weights"], first["last_attempt"]["passed"]) == ("ema", False)


def test_the_sample_for_comparing_skips_unreadable_images(tmp_path):
    from convoy.runtime.data.open_split import open_split
    from convoy.runtime.export.sample_images import _spread
    from convoy.runtime.settings.config import Config

    for label in ("cat", "dog"):
        (tmp_path / "val" / label).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "val" / label / f"{i}.jpg").write_bytes(b"%d" % i)
    (tmp_path / "val" / "cat" / "1.jpg").unlink()
    (tmp_path / "val" / "cat" / "1.jpg").symlink_to("nowhere")
    read = list(_spread(open_split(Config(data_dir=str(tmp_path)), "validation"), 100))
    assert read == [(b"0", 0), (b"2", 0), (b"0", 1), (b"1", 1), (b"2", 1)]


def test_an_int8_export_tells_once_of_each_split(trained, tiny, capsys):
    """Training images supplement the validation split's, and calibrate."""
    from convoy.runtime.builders.trained_model import trained_model
    from convoy.runtime.command_line.cli import configure
    from convoy.runtime.export.sample_images import Sample

    folder = {"model_dir": str(trained.model_dir), "data_dir": str(tiny)}
    config = configure(mode="export", export_format="tflite-int8", **folder)
    model = trained_model(config)
    capsys.readouterr()
    sample = Sample.read(config, model)
    assert sample.images
    assert sample.calibration
    said = capsys.readouterr().out.splitlines()
    for split in ("train", "validation"):
        assert sum(line.startswith(f"{split}: ") for line in said) == 1, said


def test_an_export_counts_the_images_that_cannot_be_read(trained, photos, tmp_path, capsys):
    from convoy.runtime.builders.trained_model import trained_model
    from convoy.runtime.command_line.cli import configure
    from convoy.runtime.export.sample_images import Sample

    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    (folder / "gone.jpg").symlink_to("nowhere")
    config = configure(mode="export", model_dir=str(trained.model_dir), predict_dir=str(folder))
    said = Sample.read(config, trained_model(config)).describe()
    assert said.startswith("compared on 12 images")
    assert said.endswith("; left out: 2 that cannot be read")


def test_an_export_compares_on_few_images_and_with_0_samples_on_none(
    trained, photos, tmp_path, capsys
):
    assert export(trained, tmp_path / "few", "--predict_dir", photos) == 0
    told = "compared on 12 images, which says little: one that differed would be 8.3% of them"
    assert told in capsys.readouterr().out
    card = (tmp_path / "few" / "model_card.md").read_text()
    assert "Files were compared with the Keras model on 12 images only." in card
    assert export(trained, tmp_path / "none", "--export_samples", "0") == 0
    out = capsys.readouterr().out
    assert "not compared with the Keras model (--export_samples 0)" in out
    assert "loaded, not compared" in out
    assert "Not every file was compared" in (tmp_path / "none" / "model_card.md").read_text()
    assert (tmp_path / "none" / "savedmodel" / "1" / "saved_model.pb").exists()


def test_an_export_without_images_to_compare_on_is_an_error_with_a_remedy(
    trained, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    for flags in (("--predict_dir", tmp_path / "empty"), ("--data_dir", tmp_path / "empty")):
        assert export(trained, tmp_path / "out", *flags) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "--export_samples 0" in said
        assert "--predict_dir" in said
    with pytest.raises(SystemExit):
        export(trained, tmp_path / "out", "--export_samples", "0", "--export_format", "tflite-int8")
    assert "leave out --export_samples 0" in " ".join(capsys.readouterr().err.split())


def test_unknown_formats_and_missing_packages_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="choose from savedmodel, tflite"):
        export_formats("coreml")
    monkeypatch.setattr("convoy.runtime.export.formats.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs onnx, onnxruntime, tf2onnx.*\[export\]"):
        export_formats("onnx")
    assert export_formats("tflite,savedmodel") == ["savedmodel", "tflite"]
