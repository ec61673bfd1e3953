"""The model card: known facts, unknown facts, and the escaping of foreign text."""

import pytest
import yaml
from markdown_it import MarkdownIt

from convoy.runtime.export.model_card import model_card

NASTY = "</table><script>alert(1)</script>|`x` www.x.org $y$\n---\n# [a](http://b) *c* &amp; \u202e"


def content(**changes):
    """Returns the content of export.json for a run with an evaluation, with `changes`."""
    metrics = {
        "eval_accuracy_top_1": 0.5, "eval_accuracy_top_5": 0.75, "eval_loss": 1.25,
        "eval_ema_accuracy_top_1": 0.6, "eval_ema_accuracy_top_5": 0.8, "eval_ema_loss": 1.0,
        "eval_examples": 40.0,
    }  # fmt: skip
    known = {
        "arch": "efficientnet-b0",
        "source": "step-00000014 (raw weights, epoch 2)",
        "weights": "raw",
        "epoch": 2,
        "classes": [f"class {i}" for i in range(25)],
        "preprocessing": {"image_size": 224},
        "data": {"train_examples": 1437, "named": True},
        "accuracy": {"best_of_the_run": {}, "metrics": metrics, "of_these_weights": True,
                     "of_such_images": True},
        "training": {"dataset": "ImageNet", "optimizer": "rmsprop", "mixup_alpha": 0.0},
        "versions": {"tensorflow": "2.18.1", "tf2onnx": None},
        "formats": {"tflite": {"file": "model.tflite", "bytes": 2**20, "images": 500,
                               "top1_agreement": 1.0, "top1_accuracy": 0.5, "passed": True}},
    }  # fmt: skip
    return known | changes


def parts(text):
    """Returns the front matter and the body of a card."""
    start, front, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), body


def test_accuracies_are_stated_with_the_number_of_images():
    front, body = parts(model_card(content()))
    (result,) = front["model-index"][0]["results"]
    assert [m["value"] for m in result["metrics"]] == [0.5, 0.75]
    assert (front["pipeline_tag"], front["license"]) == ("image-classification", "unknown")
    assert "tflite" in front["tags"]
    assert "on 40 validation images" in body
    # Wilson's interval of 20 of 40, by statsmodels' proportion_confint(20, 40, method="wilson").
    assert "35.2% to 64.8%" in body
    assert "training images: 1,437" in body
    assert "and 5 more" in body
    assert "| `optimizer` | rmsprop |" in body
    assert "mixup_alpha" not in body
    assert "measured on only 40 validation images" in body
    assert "data set: unknown" in body, "the default of --dataset does not mean ImageNet"
    averaged, _ = parts(model_card(content(weights="ema")))
    assert averaged["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.6
    tfds = content(training={"dataset": "tfds:mnist"})
    assert parts(model_card(tfds))[0]["model-index"][0]["results"][0]["dataset"]["name"] == (
        "tfds:mnist"
    )


OTHER_CROP = {"metrics": {"eval_accuracy_top_1": 0.9}, "of_these_weights": True}
OTHER_WEIGHTS = {"metrics": {"eval_accuracy_top_1": 0.9}, "of_such_images": True}


@pytest.mark.parametrize("accuracy", [None, {}, OTHER_CROP, OTHER_WEIGHTS])
def test_unknown_facts_are_called_unknown(accuracy):
    """Weights from a file, and checkpoints whose evaluation was of another crop or weights."""
    text = model_card(content(accuracy=accuracy, training=None, data=None, epoch=None))
    front, body = parts(text)
    assert "model-index" not in front
    unknown = ("training images: unknown", "Unknown: the weights came from a file")
    for line in (*unknown, "no evaluation of these weights", "Its accuracy is not known"):
        assert line in body
    assert "0.9" not in body


def test_an_accuracy_at_another_crop_is_replaced_by_the_samples():
    text = model_card(content(accuracy=OTHER_CROP | {"sample": 0.75}))
    assert "were compared on: top-1 75.00%" in text
    assert "known only on the images" in text
    assert "90.00%" not in text


def test_the_card_names_files_of_other_weights_and_unnamed_classes():
    given = content(data={"named": False})
    assert "the data named none" in model_card(given)
    assert "the data named none" not in model_card(given | {"label_file": True})
    entry = given["formats"]["tflite"] | {"source": given["source"]}
    older = entry | {"file": "model.onnx", "source": "step-00000007 (ema weights, epoch 1)"}
    body = model_card(given | {"formats": {"tflite": entry, "onnx": older}})
    assert "| `model.tflite` |" in body
    assert "| `model.onnx` of step-00000007 (ema weights, epoch 1) |" in body


def test_an_evaluation_counts_only_for_its_own_size_and_crop():
    from convoy.runtime.builders.trained_model import Trained
    from convoy.runtime.settings.config import Config
    from convoy.runtime.settings.images import eval_crop

    run = Config(arch="efficientnet-b0", crop_padding=16)
    trained = Trained(None, "", config=yaml.safe_dump({"arch": run.arch, "crop_padding": 16}))
    assert trained.evaluated_on(224, eval_crop(run))
    assert not trained.evaluated_on(240, eval_crop(run))
    assert not trained.evaluated_on(224, eval_crop(run.with_(crop_padding=32)))
    assert not Trained(None, "").evaluated_on(224, eval_crop(run))


def test_markup_in_names_of_classes_and_runs_is_escaped():
    dirty = content(classes=[NASTY] * 25, source=NASTY, arch=NASTY)
    dirty["training"] |= {"optimizer": NASTY, "dataset": f"tfds:{NASTY}"}
    front, body = parts(model_card(dirty))
    assert front["tags"][2] == " ".join(NASTY.replace("\u202e", " ").split())
    shown = MarkdownIt("commonmark").enable("table").render(body)
    assert "<script>" not in shown
    assert "<a href" not in shown
    assert "<em>" not in shown
    assert "www.x" not in body, "GitHub would make it a link"
    assert "alert(1)" in shown
    assert "\u202e" not in body
    clean = MarkdownIt("commonmark").enable("table").render(parts(model_card(content()))[1])
    for tag in ("<h1>", "<h2>", "<hr", "<table>", "<tr>", "<td>"):
        assert shown.count(tag) == clean.count(tag), tag


def test_an_8_bit_file_that_was_chosen_on_the_compared_images_is_called_optimistic():
    entry = {"file": "model-int8.onnx", "bytes": 2**20, "images": 500, "passed": True}
    chosen = {"calibration": "entropy", "calibrations": {"entropy": 0.99, "min-max": 0.97}}
    told = "chosen on the same images that it was compared on, so its figures in the table are opt"
    formats = {"onnx-int8": entry | {"quantisation": chosen}}
    assert f"How `model-int8.onnx` was quantised was {told}" in model_card(content(formats=formats))
    formats = {"onnx-int8": entry | {"quantisation": {"calibration": "min-max"}}}
    assert told not in model_card(content(formats=formats))
