"""The recommended format is the fastest of those that give the model's answers."""

import json

from convoy.runtime.benchmark.inference import _agreement
from convoy.runtime.benchmark.recommend import recommendation
from convoy.runtime.settings.config import Config


def cell(name, throughput, agreement=1.0, batch=1, precision="fp32", note=None):
    return {
        "format": name, "throughput": throughput, "agreement": agreement, "batch_size": batch,
        "precision": precision, "xla": False, "note": note,
    }  # fmt: skip


def test_the_fastest_format_that_agrees_is_named_for_each_batch_size():
    cells = [
        cell("keras", 10), cell("keras", 60, batch=8), cell("keras", 99, None, precision="bf16"),
        cell("onnx", 30, 0.99), cell("onnx", 40, batch=8), cell("onnx-int8", 50, None),
        cell("tflite", 80, None), cell("savedmodel", 90, note="out of memory"),
    ]  # fmt: skip
    lines = recommendation(cells).splitlines()
    assert lines == [
        "fastest at batch 1: onnx (top-1 agreement 99.00%)",
        "fastest at batch 8: keras fp32 (top-1 agreement 100.00%)",
        "not found to agree with the model, so not recommended: keras bf16, onnx-int8, tflite"
        " (--mode export compares)",
    ]


def test_one_format_needs_no_recommendation():
    assert recommendation([cell("keras", 10), cell("keras", 20, batch=8)]) == ""


def test_keras_alone_is_not_recommended_over_formats_that_nobody_compared():
    text = recommendation([cell("keras", 10), cell("onnx", 30, None)])
    assert "fastest" not in text
    assert "onnx (--mode export compares)" in text


def test_an_export_agrees_if_it_was_compared_and_passed(tmp_path):
    run = Config(model_dir=str(tmp_path))
    assert _agreement(run, "onnx-int8") is None
    (tmp_path / "export").mkdir()
    entries = {
        "onnx-int8": {"passed": True, "images": 300, "top1_agreement": 0.99},
        "onnx": {"passed": True, "images": 0},
        "tflite": {"passed": False, "images": 300, "top1_agreement": 0.5},
    }
    (tmp_path / "export" / "export.json").write_text(json.dumps({"formats": entries}))
    assert [_agreement(run, name) for name in entries] == [0.99, None, None]
    assert _agreement(run, "savedmodel") is None
