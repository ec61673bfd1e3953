"""Weights are loaded, exported and converted. tests/parity compares with PyTorch."""

import keras
import numpy as np
import pytest

from convoy.model import build_model, get_arch
from convoy.model.weights import (
    NAMES,
    WeightFileError,
    convert,
    export_weights,
    freeze_backbone,
    inspect,
    load_pretrained,
    read_weights,
)

TINY = "efficientnet-test"


def tiny_model(seed=1, **options):
    """Returns a model in which no tensor is constant."""
    model = build_model(TINY, **{"num_classes": 7, "image_size": 32, "seed": seed, **options})
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(np.asarray(v) + rng.uniform(0.01, 0.2, v.shape))
    return model


def same_weights(first, second):
    return all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(first.weights, second.weights, strict=True)
    )


# ---- loading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("names", NAMES)
def test_exported_weights_load_with_the_same_values_and_options(names, padding, tmp_path):
    options = {"padding": padding, "bn_epsilon": 2e-4, "mean": [1.0, 2, 3], "std": [4.0, 5, 6]}
    model = tiny_model(**options)
    path = tmp_path / "weights.safetensors"
    export_weights(model, TINY, path, names)
    hint = inspect(path, TINY)
    assert hint.num_classes == 7
    assert {k: hint.arguments[k] for k in options} == options
    again = build_model(TINY, num_classes=7, image_size=32, seed=2, **hint.arguments)
    report = load_pretrained(again, TINY, path, strict=True)
    assert len(report.loaded) == len(model.weights)
    assert not report.warnings
    assert same_weights(model, again)


@pytest.mark.parametrize("names", NAMES)
def test_classifier_rows_are_matched_by_class_name(names, tmp_path):
    path, theirs = tmp_path / "weights.safetensors", list("abcdefg")
    source = tiny_model()
    export_weights(source, TINY, path, names)
    ours = ["x", "g", "c"]
    model = build_model(TINY, num_classes=4, image_size=32, seed=2, **inspect(path, TINY).arguments)
    initial = {v.path: np.asarray(v) for v in model.weights}
    report = load_pretrained(model, TINY, path, class_names=ours, file_class_names=theirs)
    assert report.classes == ["classifier: 2 of 3 classes are taken from the file (g, c); new: x"]
    for v, old in zip(model.weights, source.weights, strict=True):
        if not v.path.startswith("predictions/"):
            np.testing.assert_array_equal(v, old)
            continue
        for i, at in enumerate((None, 6, 2, None)):
            want = initial[v.path][..., i] if at is None else np.asarray(old)[..., at]
            np.testing.assert_array_equal(np.asarray(v)[..., i], want)


def test_equal_classes_keep_the_files_classifier_and_others_get_a_new_one(tmp_path):
    path, theirs = tmp_path / "weights.safetensors", list("abcdefg")
    source = tiny_model()
    export_weights(source, TINY, path)
    for ours, text in (
        (theirs, []),
        (theirs[::-1], ["the classifier is the file's, its classes by name"]),
        (list("tuvwxyz"), ["new classifier: the file has other classes"]),
    ):
        model = tiny_model(seed=3)
        initial = np.asarray(model.weights[-1])
        report = load_pretrained(model, TINY, path, class_names=ours, file_class_names=theirs)
        assert [line.partition(" (")[0] for line in report.classes] == text
        kernel = {"a": source.weights[-1], "g": np.asarray(source.weights[-1])[..., ::-1]}
        np.testing.assert_array_equal(model.weights[-1], kernel.get(ours[0], initial))


def test_another_number_of_classes_gets_a_new_classifier(tmp_path):
    path = tmp_path / "weights.safetensors"
    source = tiny_model()
    export_weights(source, TINY, path, "timm")
    model = build_model(TINY, num_classes=3, image_size=32, seed=2)
    before = {v.path: np.asarray(v) for v in model.weights}
    report = load_pretrained(model, TINY, path)
    assert report.head_replaced
    assert report.unmatched_model == ["predictions/kernel", "predictions/bias"]
    assert report.unmatched_file == ["classifier.bias", "classifier.weight"]
    assert "new classifier for 3 classes: the file has 7 classes" in report.lines()
    for v, given in zip(model.weights, source.weights, strict=True):
        expected = before[v.path] if v.path.startswith("predictions") else np.asarray(given)
        np.testing.assert_array_equal(np.asarray(v), expected)

    fresh = build_model(TINY, num_classes=3, image_size=32, seed=2)
    with pytest.raises(WeightFileError, match="strict loading asks: new classifier"):
        load_pretrained(fresh, TINY, path, strict=True)
    assert all(np.array_equal(np.asarray(v), before[v.path]) for v in fresh.weights)


def test_every_unmatched_tensor_is_listed(tmp_path):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "weights.safetensors"
    export_weights(tiny_model(), TINY, path, "timm")
    arrays = load_file(path)
    arrays["extra.weight"] = np.zeros(3, np.float32)
    del arrays["bn2.bias"]
    arrays["bn2.weight"] = np.zeros(5, np.float32)
    save_file(arrays, path)
    report = load_pretrained(tiny_model(), TINY, path, partial=True)
    assert report.unmatched_file == ["extra.weight"]
    assert report.unmatched_model == ["top_bn/beta"]
    assert report.mismatched == ["top_bn/gamma: (5) in the file, (48) in the model"]
    for name in ("extra.weight", "top_bn/beta", "top_bn/gamma: (5) in the file, (48) in"):
        assert any(name in line for line in report.lines())


def test_another_architecture_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    export_weights(tiny_model(), TINY, path)
    with pytest.raises(WeightFileError, match=f"it holds {TINY}"):
        inspect(path, "efficientnet-b0")
    export_weights(tiny_model(), TINY, path, "timm")
    arrays = read_weights(path).arrays
    from safetensors.numpy import save_file

    save_file({k: v[..., None] for k, v in arrays.items()}, path)
    with pytest.raises(WeightFileError, match=r"of another shape: \d+ .*holds another network"):
        load_pretrained(tiny_model(), TINY, path, partial=True)


def test_a_model_built_with_other_options_than_the_file_implies_is_reported(tmp_path):
    path = tmp_path / "weights.safetensors"
    export_weights(tiny_model(padding="symmetric"), TINY, path)
    report = load_pretrained(tiny_model(), TINY, path)
    assert report.warnings == [
        "warning: built with padding same, but the file implies symmetric",
    ]


def test_freeze_backbone_leaves_only_the_classifier_trainable():
    model = tiny_model()
    freeze_backbone(model, TINY)
    assert [v.path for v in model.trainable_weights] == ["predictions/kernel", "predictions/bias"]
    freeze_backbone(model, TINY, frozen=False)
    assert len(model.trainable_weights) > 2


# ---- keras.applications -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def applications(tmp_path_factory):
    """keras.applications' B0 in all of Keras' file formats, with statistics of some images."""
    import h5py

    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(
        weights=None, input_shape=(64, 64, 3), classes=5, classifier_activation=None
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype("float32")
    normalization = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    adapted = ([0.4, 0.5, 0.6], [0.05, 0.06, 0.07], 3)
    for v, value in zip(normalization.weights, adapted, strict=True):
        v.assign(value)
    normalization.finalize_state()
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        v.assign(np.asarray(v) + rng.uniform(-0.2, 0.2, v.shape) * (v.name != "kernel"))
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer in norms:
        layer.momentum = 0.99
    folder = tmp_path_factory.mktemp("applications")
    model.save(folder / "whole.keras")
    model.save_weights(folder / "only.weights.h5")
    model.save(folder / "whole.h5")
    with h5py.File(folder / "whole.h5") as whole, h5py.File(folder / "only.h5", "w") as only:
        for key, value in whole["model_weights"].attrs.items():
            only.attrs[key] = value
        for key in whole["model_weights"]:
            whole.copy(f"model_weights/{key}", only)
    return folder, images, np.asarray(model(images, training=False))


@pytest.mark.parametrize(
    "name",
    [
        "whole.keras",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("only.weights.h5", "whole.h5", "only.h5")
        ),
    ],
)
def test_files_of_keras_applications_give_the_same_logits(applications, name):
    folder, images, expected = applications
    hint = inspect(folder / name, "efficientnet-b0")
    assert hint.num_classes == 5
    assert hint.arguments["padding"] == "same"
    assert (hint.arguments["bn_epsilon"], hint.arguments["bn_momentum"]) == (1e-3, 0.99)
    np.testing.assert_allclose(hint.arguments["mean"], 255 * np.array([0.4, 0.5, 0.6]), rtol=1e-6)
    np.testing.assert_allclose(hint.arguments["std"], 255 * np.sqrt([0.05, 0.06, 0.07]), rtol=1e-6)
    model = build_model("efficientnet-b0", num_classes=5, image_size=64, **hint.arguments)
    report = load_pretrained(model, "efficientnet-b0", folder / name, strict=True)
    assert not report.warnings
    logits = np.asarray(model(images, training=False))
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


# ---- converting ---------------------------------------------------------------------------------


def test_conversions_of_a_checkpoint_keep_every_value(trained, tmp_path):
    first = tmp_path / "plain.safetensors"
    reports = [convert(trained.model_dir, first, ema=True)]
    for name, names in (
        ("a.keras", "convoy"),
        ("b.weights.h5", "convoy"),
        ("c.safetensors", "timm"),
    ):
        reports.append(convert(first, tmp_path / name, names=names))
    arch = get_arch(TINY).name
    reports += [
        convert(tmp_path / name, tmp_path / f"{name}.safetensors", arch=arch)
        for name in ("a.keras", "b.weights.h5", "c.safetensors")
    ]
    for report in reports:
        assert report.max_logit > 0.01
        assert report.max_logit_difference == pytest.approx(0, abs=1e-5 * report.max_logit)
        assert any("logits differ by at most" in line for line in report.lines())
    original = read_weights(trained.model_dir, ema=True).arrays
    for name in ("a.keras", "b.weights.h5", "c.safetensors"):
        arrays = read_weights(tmp_path / f"{name}.safetensors").arrays
        assert arrays.keys() == original.keys()
        assert all(np.array_equal(arrays[k], original[k]) for k in original)


def test_a_conversion_without_an_architecture_or_a_valid_target_is_refused(tmp_path):
    path = tmp_path / "x.weights.h5"
    export_weights(tiny_model(), TINY, path)
    with pytest.raises(ValueError, match="give --arch"):
        convert(path, tmp_path / "y.keras")
    for target, names, problem in (
        ("y.pth", "timm", "must end in"),
        ("y.keras", "timm", "go into a .safetensors"),
        ("y.safetensors", "paddle", "names must be one of"),
    ):
        with pytest.raises(ValueError, match=problem):
            convert(path, tmp_path / target, arch=TINY, names=names)
    assert [p.name for p in tmp_path.iterdir()] == ["x.weights.h5"]
