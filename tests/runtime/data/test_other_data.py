"""Applying a checkpoint to other data than it was trained on: matched by name, or refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from main import main
from tests.runtime.class_folders import write_class_folders
from tests.runtime.fitted_run import FittedRun


@pytest.fixture
def colours(tmp_path):
    """`colours("a", val={"red": 3})` makes a data_dir with three images of plain red, and so on."""
    from PIL import Image

    shades = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}

    def picture(label, i):
        image = Image.new("RGB", (40, 40), shades.get(label, (128, 128, 128)))
        image.putpixel((i, i), (0, 0, 0))
        return image

    def make(name, **splits):
        return str(write_class_folders(tmp_path / name, splits, picture))

    return make


@pytest.fixture
def knows_colours(tmp_path, colours):
    """A run whose model recognises the colours: its head is fitted by least squares."""
    data = colours("all", train=dict.fromkeys(("blue", "green", "red"), 4))
    fitted = FittedRun(data, "train", 12, ("blue", "green", "red"))
    head = np.linalg.lstsq(fitted.features, 10.0 * np.eye(3)[fitted.labels], rcond=None)[0]
    fitted.save(tmp_path / "run", fitted.weights(head))
    return str(tmp_path / "run")


def test_an_evaluation_on_other_folders_matches_classes_by_name(knows_colours, colours, capsys):
    """Missing classes, and new ones earlier in the sorted list, do not shift the others."""

    def top1(data, *more):
        assert (
            main(["--mode", "eval", "--model_dir", knows_colours, "--data_dir", data, *more]) == 0
        )
        out = capsys.readouterr().out
        return float(re.search(r"eval_accuracy_top_1 +([\d.]+)", out)[1]), out

    found, out = top1(colours("fewer", val={"green": 3, "red": 3}))
    assert found == 1.0
    assert "the data lack the class 'blue' of the model's 3 classes" in out
    both = {"train": {"amber": 2, "red": 2}, "val": {"red": 3}}
    assert top1(colours("beside", **both))[0] == 1.0
    report = Path(knows_colours) / "eval_report"
    assert top1(colours("report", val={"red": 3}), "--report")[0] == 1.0
    rows = (report / "per_class.csv").read_text().splitlines()
    assert [row.split(",")[1:3] for row in rows[1:]] == [
        ["blue", "0"],
        ["green", "0"],
        ["red", "3"],
    ]
    more = colours("more", val={"red": 3, "amber": 2})
    for flags in ((), ("--report",)):
        args = ["--mode", "eval", "--model_dir", knows_colours, "--data_dir", more, *flags]
        assert main(args) == 1
        err = " ".join(capsys.readouterr().err.split())
        assert "has images of the class 'amber', which the model does not know" in err
        assert "--num_classes" not in err


@pytest.mark.slow
def test_weights_from_a_run_a_checkpoint_or_a_converted_file_keep_names_and_size(
    knows_colours, colours, tmp_path, capsys
):
    """`--pretrained_from_file` takes all three, and gives the same results as `--model_dir`."""
    folder = colours("some", val={"green": 2, "red": 2})
    image = f"{folder}/val/red/0.jpg"
    checkpoint = next((Path(knows_colours) / "checkpoints").glob("step-*"))
    converted = tmp_path / "converted.safetensors"
    convert = ["--mode", "convert", "--model_dir", knows_colours, "--output", str(converted)]
    assert main(convert) == 0
    for file in (knows_colours, str(checkpoint), str(converted)):
        weights = ["--pretrained_from_file", file]
        capsys.readouterr()
        assert main(["--mode", "predict", *weights, "--image", image]) == 0
        assert capsys.readouterr().out.startswith(f"{image}: red "), file
        assert main(["--mode", "eval", *weights, "--data_dir", folder, "--model_dir", folder]) == 0
        out = capsys.readouterr().out
        assert re.search(r"eval_accuracy_top_1 +1\.0", out), file
        assert "lack the class 'blue'" in out


def test_settings_for_a_timm_file_are_read_from_its_config_json(tmp_path):
    from convoy.model.weights.origin import how_applied

    file = tmp_path / "model.safetensors"
    file.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert how_applied(file) == {}
    settings = {"input_size": [3, 224, 224], "test_input_size": [3, 256, 256], "crop_pct": 0.95}
    settings |= {"interpolation": "bicubic", "label_names": ["cat", "dog"]}
    config = {"architecture": "efficientnet_b0", "pretrained_cfg": settings}
    file.with_name("config.json").write_text(json.dumps(config))
    found = how_applied(file)
    assert found.pop("class_names") == ["cat", "dog"]
    assert found == {
        "eval_crop": "resize",
        "image_size": 256,
        "crop_pct": 0.95,
        "interpolation": "bicubic",
    }
    file.with_name("config.json").write_text("[]")
    assert how_applied(file) == {}
