"""The picture of the confusion matrix."""

import numpy as np
import pytest

from convoy.runtime.evaluate.plots import SIDE, _heat, classes_a_pixel
from convoy.utils.classification import confusion


def test_the_colours_of_the_matrix_follow_its_counts():
    heat = _heat(confusion(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), 3))
    # 0.75 of full strength, and 0.75 of half.
    np.testing.assert_array_equal(heat[[0, 1], [0, 1], 3], [191, 96])
    assert heat[1, 0, 3] == round(255 * (0.15 + 0.85 * 0.5**0.5))
    assert np.count_nonzero(heat[..., 3]) == 3
    assert (heat[0, 0, 2], heat[1, 0, 0]) == (0xC6, 0xD9)  # blue and orange


@pytest.mark.parametrize("classes", [1001, 12_345])
def test_many_classes_share_pixels_in_the_matrix(classes):
    """The reference sums the matrix in blocks, example by example."""
    per = classes_a_pixel(classes)
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 3000)
    predicted = np.where(rng.random(3000) < 0.5, labels, (labels + 1) % classes)
    heat = _heat(confusion(labels, predicted, classes), per)
    assert len(heat) <= SIDE
    want = np.zeros(heat.shape[:2])
    for label, answer in zip(labels, predicted, strict=True):
        row, column = label // per, answer // per
        if row != column or label == answer:
            want[row, column] += 1 / np.sum(labels // per == row)
    strong = np.where(want > 0, 0.15 + 0.85 * np.sqrt(want), 0)
    np.fill_diagonal(strong, 0.75 * np.diag(want))
    np.testing.assert_allclose(heat[..., 3], 255 * strong, atol=0.51)


def test_each_of_1000_classes_has_its_own_pixel():
    assert classes_a_pixel(1000) == 1
