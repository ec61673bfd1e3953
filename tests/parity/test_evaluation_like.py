"""`--evaluation_like`: logits of a weight file, from the JPEG on, as in its own program."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader.images.crops import eval_decode
from convoy.runtime.builders.trained_model import trained_model
from convoy.runtime.command_line.cli import configure
from convoy.runtime.settings.evaluation_like import PRESETS
from convoy.runtime.settings.images import eval_crop
from main import main

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

CLASSES, ALLOWED = 20, 1e-3
TORCHVISIONS = {
    "resnet18": ("resnet18", "IMAGENET1K_V1"),
    "resnet50": ("resnet50", "IMAGENET1K_V2"),
    "efficientnet_b0": ("efficientnet-b0", "IMAGENET1K_V1"),
    "efficientnet_b1": ("efficientnet-b1", "IMAGENET1K_V2"),
}
SQUASH = {"crop_mode": "squash", "crop_pct": 0.9, "test_crop_pct": 0.9, "interpolation": "bilinear"}
TIMMS = {
    "resnet18": ("resnet18", {}),
    "resnet18, squashed": ("resnet18", SQUASH),
    "efficientnet_b0": ("efficientnet-b0", {}),
    "tf_efficientnet_b0": ("efficientnet-b0", {}),
}


@pytest.fixture(scope="session")
def jpegs(tmp_path_factory):
    """JPEGs of photographs, of both usual kinds of colour, wide, square and tall."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    skimage = pytest.importorskip("skimage", reason="scikit-image is not installed")
    folder = tmp_path_factory.mktemp("jpegs")
    photos = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee")}
    photos |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    photos["tall"] = photos["china"][:, 100:270]
    for number, (name, pixels) in enumerate(photos.items()):
        how = {"quality": 90, "subsampling": 2 * (number % 2)}
        Image.fromarray(pixels).save(folder / f"{name}.jpg", **how)
    return sorted(folder.iterdir())


def ours(file, arch, program, jpegs, **flags):
    """Returns our logits, by the steps of predict, with the likeness and without it."""
    given = {"mode": "predict", "pretrained_from_file": str(file), "image": str(jpegs[0])}
    keras.backend.clear_session()
    found = []
    for like in (program, None):
        config = configure(**given, arch=arch, evaluation_like=like, **flags)
        trained = trained_model(config)
        size, crop = trained.model.input_shape[1], eval_crop(config)
        images = [eval_decode(tf.constant(path.read_bytes()), size, crop) for path in jpegs]
        found.append(np.asarray(trained.model(tf.stack(images), training=False)))
    return found


def judge(expected, found, row, record_property):
    like, plain = (float(np.abs(logits - expected).max()) for logits in found)
    spread = float(expected.std(axis=0).mean())
    row = row | {"spread of logits": spread, "like it": like, "without the flag": plain}
    record_property("pixels", row)
    print(row)
    assert spread > 0.1  # the pictures must matter
    assert like < ALLOWED


def asked(torch, model, transform, jpegs):
    """Returns a PyTorch model's logits for the files, with its program's loader and transform."""
    from torchvision.datasets.folder import default_loader

    images = torch.stack([transform(default_loader(str(path))) for path in jpegs])
    with torch.no_grad():
        return model.eval().double()(images.double()).numpy()


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_logits_equal_torchvisions(
    name, torch, torchvision, randomise, jpegs, tmp_path, record_property
):
    arch, version = TORCHVISIONS[name]
    weights = torchvision.models.get_model_weights(name)[version]
    model = torchvision.models.get_model(name, num_classes=CLASSES)
    randomise(model, 96)
    file = tmp_path / weights.url.rsplit("/", 1)[-1]
    torch.save(model.state_dict(), file)
    expected = asked(torch, model, weights.transforms(), jpegs)
    row = {"program": "torchvision", "weights": f"{name} {version}"}
    judge(expected, ours(file, arch, "torchvision", jpegs), row, record_property)


@pytest.mark.parametrize("case", TIMMS)
def test_logits_equal_timms(case, torch, timm, randomise, jpegs, tmp_path, record_property):
    from timm.data import create_transform, resolve_model_data_config
    from timm.models import save_for_hf

    arch, overlay = TIMMS[case]
    name = case.split(",")[0]
    model = timm.create_model(name, num_classes=CLASSES, pretrained_cfg_overlay=overlay)
    randomise(model, 96)
    save_for_hf(model, tmp_path, safe_serialization=True)
    config = resolve_model_data_config(model, use_test_size=True)
    expected = asked(torch, model, create_transform(**config), jpegs)
    row = {"program": "timm", "weights": case}
    file = tmp_path / "model.safetensors"
    padding = {"padding": "same"} if name.startswith("tf_") else {}
    judge(expected, ours(file, arch, "timm", jpegs, **padding), row, record_property)


@pytest.mark.parametrize(
    ("theirs", "arch"),
    [("EfficientNetB0", "efficientnet-b0"), ("EfficientNetV2B0", "efficientnetv2-b0")],
)
def test_logits_equal_keras(theirs, arch, torch, jpegs, tmp_path, record_property):
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, theirs)
    model = make(weights=None, classes=CLASSES, classifier_activation=None)
    model.save(tmp_path / "x.keras")
    model = keras.saving.load_model(tmp_path / "x.keras", compile=False)
    size = model.input_shape[1:3]
    images = [keras.utils.load_img(path, target_size=size) for path in jpegs]
    images = np.stack([keras.utils.img_to_array(image) for image in images])
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)  # statistics with which the pictures matter
    model.save(tmp_path / "x.keras")
    expected = np.asarray(model(images, training=False))
    row = {"program": "keras", "weights": theirs}
    judge(expected, ours(tmp_path / "x.keras", arch, "keras", jpegs), row, record_property)


def nvidias(path, size):
    """Returns what the documents' program for EfficientNets makes of a file, with its defaults."""
    content = tf.constant(path.read_bytes())
    shape = tf.io.extract_jpeg_shape(content)
    short = tf.cast(tf.minimum(shape[0], shape[1]), tf.float32)
    side = tf.cast(size / (size + 32) * short, tf.int32)
    y, x = ((shape[axis] - side + 1) // 2 for axis in (0, 1))
    image = tf.image.decode_and_crop_jpeg(content, tf.stack([y, x, side, side]), channels=3)
    return tf.image.resize(image, [size, size], "bilinear")


def test_logits_equal_those_of_the_documents(
    torch, torchvision, randomise, jpegs, tmp_path, record_property
):
    for name, arch in (("efficientnet_b0", "efficientnet-b0"), ("resnet18", "resnet18")):
        model = torchvision.models.get_model(name, num_classes=CLASSES)
        randomise(model, 96)
        file = tmp_path / f"{name}.pth"
        torch.save(model.state_dict(), file)
        if arch == "resnet18":
            from torchvision import transforms

            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
            whole = transforms.Compose([*steps, transforms.Normalize(mean, std)])
            expected = asked(torch, model, whole, jpegs)
        else:
            given = {"mode": "predict", "image": str(jpegs[0]), "arch": arch}
            trained = trained_model(configure(**given, pretrained_from_file=str(file)))
            images = tf.stack([nvidias(path, 224) for path in jpegs])
            expected = np.asarray(trained.model(images, training=False))
        row = {"program": "documents", "weights": arch}
        judge(expected, ours(file, arch, "documents", jpegs), row, record_property)


def test_an_export_carries_the_pixels(torch, timm, randomise, jpegs, tmp_path, record_property):
    """Its signature for encoded images decodes and resizes with TensorFlow's operations alone."""
    from timm.data import create_transform, resolve_model_data_config
    from timm.models import save_for_hf

    model = timm.create_model("resnet18", num_classes=CLASSES)
    randomise(model, 96)
    save_for_hf(model, tmp_path, safe_serialization=True)
    config = resolve_model_data_config(model, use_test_size=True)
    expected = asked(torch, model, create_transform(**config), jpegs)
    flags = ["--mode", "export", "--arch", "resnet18", "--evaluation_like", "timm"]
    flags += ["--pretrained_from_file", tmp_path / "model.safetensors"]
    flags += ["--predict_dir", jpegs[0].parent, "--output", tmp_path / "out"]
    assert main([str(flag) for flag in flags]) == 0
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["preprocessing"]["crop"]["arithmetic"] == "pillow"
    (place,) = Path(tmp_path / "out" / "savedmodel").iterdir()
    loaded = tf.saved_model.load(str(place)).signatures["serving_default"]
    encoded = tf.constant([path.read_bytes() for path in jpegs])
    logits = loaded(image_bytes=encoded)["logits"].numpy()
    assert float(np.abs(logits - expected).max()) < ALLOWED


def test_presets_are_those_of_torchvisions_weights(torchvision):
    for arch, marks in PRESETS.items():
        name = arch.replace("efficientnetv2", "efficientnet_v2").replace("-", "_")
        weights = list(torchvision.models.get_model_weights(name))
        assert len(weights) == len(marks), arch
        for weight, (mark, preset) in zip(weights, marks.items(), strict=True):
            transform = weight.transforms()
            assert mark in weight.url
            assert (preset.crop, preset.resize) == (
                *transform.crop_size,
                *transform.resize_size,
            ), weight
            assert preset.interpolation == transform.interpolation.value
