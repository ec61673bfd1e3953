"""What an exported ONNX file says about itself, and which files are refused."""

import json

import numpy as np
import pytest

from convoy.model.weights.onnx_file import OnnxFileError, facts, in_folder, is_onnx, settings
from convoy.model.weights.origin import how_applied
from tests.onnx_bytes import field, metadata, network

WEIGHTS = np.eye(3, 2)


@pytest.fixture
def write(tmp_path):
    def file(content):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return file


def test_an_exports_settings_are_those_of_its_metadata(write):
    path = write(network(WEIGHTS, about=metadata(size=300)))
    assert facts(path)["source"] == "step-00000014 (raw weights, epoch 2)"
    assert settings(path) == {
        "arch": "efficientnet-test",
        "image_size": 300,
        "crop_padding": 8,
        "eval_crop": "crop",
        "interpolation": "bilinear",
        "exif_orientation": "apply",
        "class_names": ["cat", "dog"],
    }
    assert how_applied(path) == settings(path)


def test_files_and_folders_of_exports_are_recognised(tmp_path, write):
    assert in_folder(tmp_path) is None
    path = write(b"")
    assert in_folder(tmp_path) == path
    (tmp_path / "checkpoints").mkdir()
    assert in_folder(tmp_path) is None  # a run
    assert is_onnx(path)
    assert is_onnx("A.ONNX")
    assert not is_onnx("model.keras")
    assert not is_onnx(None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an ONNX file"),
        (b"this is a text, not a network", "is not an ONNX file, or is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "is not an ONNX file, or is damaged|is cut short"),
        (network(WEIGHTS, about=metadata())[:90], "is cut short: copy or export it again"),
        (network(WEIGHTS, about=metadata())[:-1], "is cut short: copy or export it again"),
        (network(WEIGHTS, graph=False), "is not an ONNX file"),
        (network(WEIGHTS), "does not say how to prepare images, so Convoy did not export it"),
        (network(WEIGHTS, about=[1]), "are not those of an export"),
        (network(WEIGHTS, about=metadata(preprocessing=None)), "does not say how to prepare"),
        (network(WEIGHTS, about=metadata(preprocessing={"image_size": 32})), "lack a usable crop"),
        (network(WEIGHTS, about=metadata(size="large")), "lack a usable int instead of 'large'"),
        (network(WEIGHTS, about=metadata(classes=[1, 2])), "lack a usable str instead of 1"),
        (network(WEIGHTS, about=metadata(arch=None)), "lack a usable str instead of None"),
        (field(7, b"") + field(14, field(1, "metadata.json") + field(2, "{")), "did not export it"),
        (field(7, b"") + field(14, field(1, "a") + field(2, b"\xff")), "is damaged"),
    ],
)
def test_files_that_are_no_whole_exports_are_refused_in_one_line(write, content, words):
    path = write(content)
    with pytest.raises(OnnxFileError, match=words) as refused:
        settings(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
    assert how_applied(path) == {}


def test_antialiasing_which_predict_does_not_know_is_refused(write):
    about = metadata()
    about["preprocessing"]["crop"]["antialias"] = True
    with pytest.raises(OnnxFileError, match="needs images resized with antialias"):
        settings(write(network(WEIGHTS, about=about)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OnnxFileError, match=r"none\.onnx cannot be read: No such file"):
        facts(tmp_path / "none.onnx")


def test_random_damage_never_causes_another_error(write):
    whole = network(WEIGHTS, about=metadata())
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(content))] = rng.integers(256)
        try:
            found = settings(write(bytes(content[: rng.integers(1, len(content) + 1)])))
        except OnnxFileError:
            continue
        assert json.dumps(found)
