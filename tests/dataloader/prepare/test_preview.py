"""`dataloader.prepare preview` shows the loader's images and names their augmentations."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.prepare.__main__ import main
from convoy.dataloader.sources.find import find_source


def preview(tiny, tmp_path, *arguments):
    """Runs the command; returns the page's text, its augmented images, and its captions."""
    out = tmp_path / "sheet"
    command = ["preview", "--data_dir", tiny, "--out", out, "--image_size", 32, *arguments]
    assert main([str(argument) for argument in command]) == 0
    page = (tmp_path / "sheet.html").read_text()
    found = re.findall(r'base64,([^"]+)" alt="as trained on"', page)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    return page, images, captions


@pytest.mark.slow
def test_images_equal_the_loaders_and_captions_name_their_augmentations(tiny, tmp_path):
    page, images, captions = preview(
        tiny, tmp_path, "--count", 30, "--augmenter_name", "autoaugment"
    )
    loader = Loader(
        find_source(tiny, "train"),
        InputOptions(image_size=32, batch_size=30, augmenter="autoaugment"),
        training=True,
    )
    batch, labels, _ = next(iter(loader.batches(0)))
    assert (np.stack(images) == batch.numpy()).all()
    names = [re.sub("<[^>]*>", "", caption.split("</b>")[0]) for caption in captions]
    assert names == [str(n) for n in labels.numpy()]
    assert "var(--card)" in page, "the page must have the style of the others"
    text = " ".join(captions)
    assert len(set(re.findall(r"Equalize|Posterize|Color|Rotate|Solarize|ShearX|Invert", text))) > 3
    flips = sum("flipped" in caption for caption in captions)
    assert 5 <= flips <= 25
    assert "://" not in page, "the page must need no other file"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 5 * 128
        assert sheet.height > 5 * 128


def test_settings_come_from_a_run_and_flags_override_them(tiny, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(
        "train_image_size: 48\naugmenter_name: none\nhflip: 0.0\ncrop_area_min: 1.0\n"
        "crop_ratio_min: 1.0\n"
        "crop_ratio_max: 1.0\nlr_init: 0.1\nmixup_alpha: 0.0\nimage_size: 64\nnum_classes: null\n"
    )
    arguments = ("--config", config, "--count", 4)
    page, images, captions = preview(tiny, tmp_path, *arguments)
    assert [image.shape for image in images] == [(32, 32, 3)] * 4
    assert all(caption.endswith("crop 100 %") for caption in captions)
    assert "augmenter none" in page
    command = ["preview", "--data_dir", tiny, "--out", tmp_path / "x", *arguments]
    assert main([str(argument) for argument in command]) == 0
    assert "4 training images of epoch 0, 48 x 48 pixels" in capsys.readouterr().out
    captions = preview(tiny, tmp_path, *arguments, "--hflip", 1)[2]
    assert all("flipped" in caption for caption in captions)
    captions = preview(tiny, tmp_path, *arguments, "--mixup_alpha", 1)[2]
    assert any(re.search(r"\d+ % \d \+ \d+ % \d", caption) for caption in captions)


def test_captions_name_erasing(tiny, tmp_path):
    arguments = ("--augmenter_name", "none", "--random_erasing", 1, "--count", 8)
    captions = preview(tiny, tmp_path, *arguments)[2]
    assert sum("Erase" in caption for caption in captions) >= 6


def test_invalid_settings_of_a_preview_are_refused(tiny, tmp_path, capsys):
    def refused(words, *arguments):
        assert main(["preview", "--out", str(tmp_path / "x"), *map(str, arguments)]) == 2
        assert words in capsys.readouterr().err

    refused("does not exist", "--data_dir", tmp_path / "nowhere")
    refused("--count must be", "--data_dir", tiny, "--count", 0)
    refused("Unknown augmenter 'auto'", "--data_dir", tiny, "--augmenter_name", "auto")
    refused("--config", "--data_dir", tiny, "--config", tmp_path / "nowhere.yaml")
    (tmp_path / "recipe.yaml").write_text("base: other.yaml\n")
    (tmp_path / "run.yaml").write_text("image_size: null\nhflip: 0.5\n")
    refused("give --image_size", "--data_dir", tiny, "--config", tmp_path / "run.yaml")
    refused("is a recipe built on", "--data_dir", tiny, "--config", tmp_path / "recipe.yaml")
    assert not list(tmp_path.glob("x*"))
