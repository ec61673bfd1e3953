"""The recommended format is the fastest of those that give the model's answers."""

import json

from convoy.runtime.benchmark.inference import _agrees
from convoy.runtime.benchmark.recommend import recommendation


def cell(name, throughput, agrees=True, batch=1, precision="fp32", note=None):
    return {
        "format": name, "throughput": throughput, "agrees": agrees, "batch_size": batch,
        "precision": precision, "xla": False, "note": note,
    }  # fmt: skip


def test_the_fastest_format_that_agrees_is_named_for_each_batch_size():
    cells = [
        cell("keras", 10), cell("keras", 60, batch=8), cell("keras", 99, None, precision="bf16"),
        cell("onnx", 30), cell("onnx", 40, batch=8), cell("onnx-int8", 50, False),
        cell("tflite", 80, None), cell("savedmodel", 90, note="out of memory"),
    ]  # fmt: skip
    lines = recommendation(cells).splitlines()
    assert lines == [
        "fastest here with the model's answers: onnx, at batch 1",
        "fastest here with the model's answers: keras fp32, at batch 8",
        "no comparison with the model's answers, so not recommended: keras bf16, onnx-int8, tflite"
        " (--mode export compares)",
    ]


def test_one_format_needs_no_recommendation():
    assert recommendation([cell("keras", 10), cell("keras", 20, batch=8)]) == ""


def test_keras_alone_is_not_recommended_over_formats_that_nobody_compared():
    text = recommendation([cell("keras", 10), cell("onnx", 30, None)])
    assert "fastest" not in text
    assert "onnx (--mode export compares)" in text


def test_an_export_agrees_if_it_was_compared_and_passed(tmp_path):
    from convoy.runtime.settings.config import Config

    run = Config(model_dir=str(tmp_path))
    assert _agrees(run, "onnx-int8") is None
    (tmp_path / "export").mkdir()
    entries = {
        "onnx-int8": {"passed": True, "images": 300},
        "onnx": {"passed": True, "images": 0},
        "tflite": {"passed": False, "images": 300},
    }
    (tmp_path / "export" / "export.json").write_text(json.dumps({"formats": entries}))
    assert [_agrees(run, name) for name in entries] == [True, None, False]
    assert _agrees(run, "savedmodel") is None
