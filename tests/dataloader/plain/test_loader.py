"""Evaluation's batches without TensorFlow are those of its loader."""

import numpy as np
import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.loader import InputOptions, Loader
from convoy.dataloader.plain.loader import PlainLoader
from convoy.dataloader.sources.find import find_source
from tests.dataloader.packing import encoded, picture


def plain(source, batch=4, classes=2):
    how = {"image_size": 16, "batch_size": batch, "crop": EvalCrop(8), "threads": 3}
    return PlainLoader(source, classes, **how)


@pytest.mark.parametrize("batch", [1, 4, 10, 64])
def test_batches_and_verdicts_are_those_of_the_loader(photos, batch):
    (photos / "val" / "ant" / "cut.jpg").write_bytes(encoded(picture(1))[:300])
    (photos / "val" / "bee" / "heic.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    source = find_source(str(photos), "validation")
    options = InputOptions(image_size=16, batch_size=batch, eval_crop=EvalCrop(8), num_workers=1)
    loader, ours = Loader(source, options, training=False), plain(source, batch)
    loader.lenient = True
    for want, got in zip(list(loader.batches(0)), list(ours.batches(0)), strict=True):
        counts = want.weights.numpy() > 0
        np.testing.assert_array_equal(got.weights, want.weights)
        np.testing.assert_array_equal(got.images[counts], want.images.numpy()[counts])
        np.testing.assert_array_equal(got.labels[counts], want.labels.numpy()[counts])
    assert list(ours.bad_examples) == sorted(loader.bad_examples)
    assert len(ours.bad_examples) == 2
    assert "cut.jpg: damaged" in ours.bad_examples[5]
    assert "the image is HEIC, which is not read" in ours.bad_examples[11]
    ours.look_again()
    assert ours.bad_examples == {}


def test_a_label_outside_the_classes_is_an_error(photos):
    with pytest.raises(DataError, match=r"label 1 .* is outside"):
        list(plain(find_source(str(photos), "validation"), classes=1).batches(0))
