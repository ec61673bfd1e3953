"""Files as timm and transformers write them are converted to `.keras` on the command line."""

import json

import keras
import numpy as np
import pytest

from main import main

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

CLASSES, SIZE = 20, 224


def timm_pth(torch, model, folder, name):
    torch.save(model.state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


def timm_safetensors(torch, model, folder, name):
    """Saves as timm does for the hub: model.safetensors with a config.json beside it."""
    from timm.models import save_for_hf

    save_for_hf(model, folder, safe_serialization=True)
    assert json.loads((folder / "config.json").read_text())["architecture"] == name
    return folder / "model.safetensors"


def convert(file, arch, output, capsys):
    """Returns the program's output and the model that it wrote."""
    import convoy.model.resnet  # noqa: F401  (the layers that the file names)

    flags = ("--mode", "convert", "--arch", arch, "--output", output)
    assert main([str(arg) for arg in (*flags, "--pretrained_from_file", file)]) == 0
    said = capsys.readouterr().out
    return said, keras.saving.load_model(output, compile=False)


def judge(ours, expected, images, row, said, record_property):
    logits = np.asarray(ours(images, training=False))
    difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
    record_property("files", {**row, "logits": difference})
    print(said)
    assert "logits differ by at most" in said
    assert difference < 1e-4


@pytest.fixture
def expect(torch, to_torch, pictures):
    def logits(model, images):
        with torch.no_grad():
            answer = model.double()(to_torch(images).double())
        return getattr(answer, "logits", answer).numpy()

    return logits


@pytest.mark.parametrize("write", [timm_pth, timm_safetensors])
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "tf_efficientnet_b0"])
def test_a_converted_timm_file_has_the_same_logits(
    name, write, torch, timm, randomise, pictures, expect, tmp_path, capsys, record_property
):
    theirs = timm.create_model(name, num_classes=CLASSES)
    randomise(theirs, SIZE)
    file = write(torch, theirs, tmp_path, name)
    arch = name.removeprefix("tf_").replace("_", "-")
    said, ours = convert(file, arch, tmp_path / "ours.keras", capsys)
    images = pictures(SIZE)
    row = {"file": f"{file.name} of timm {name}", "arch": arch}
    judge(ours, expect(theirs, images), images, row, said, record_property)


@pytest.mark.parametrize("arch", ["resnet50", "efficientnet-b0"])
def test_a_converted_transformers_file_has_the_same_logits(
    arch, transformers, randomise, pictures, expect, tmp_path, capsys, record_property
):
    if arch == "resnet50":
        config = transformers.ResNetConfig(num_labels=CLASSES)
        theirs = transformers.ResNetForImageClassification(config)
    else:
        scale = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
        config = transformers.EfficientNetConfig(num_labels=CLASSES, **scale)
        theirs = transformers.EfficientNetForImageClassification(config)
    randomise(theirs, SIZE)
    theirs.save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    said, ours = convert(file, arch, tmp_path / "ours.keras", capsys)
    images = pictures(SIZE)
    row = {"file": "model.safetensors of transformers", "arch": arch}
    judge(ours, expect(theirs, images), images, row, said, record_property)
