"""How much classes count in the training loss, and what is refused."""

import numpy as np
import pytest

from convoy.runtime.class_weights import class_weights
from convoy.runtime.config import Config, ConfigError
from main import main

COUNTS = np.array([6, 3, 1, 0])


class Data:
    num_classes, class_names = 4, ["cat", "dog", "owl", "käfer"]

    class source:
        @staticmethod
        def all_labels():
            return np.repeat([0, 1, 2, -1], [6, 3, 1, 2])


def weights_of(setting):
    return class_weights(Config(class_weights=str(setting)), Data())


def test_balanced_classes_count_alike_and_the_mean_example_counts_one():
    assert weights_of("none") is None
    weights = weights_of("balanced")
    np.testing.assert_allclose(weights * COUNTS, [10 / 3, 10 / 3, 10 / 3, 0], rtol=1e-6)


def test_a_files_weights_go_by_name(tmp_path):
    file = tmp_path / "weights.yaml"
    file.write_bytes("\ufeffowl: 5\nka\u0308fer: 2.5   # as macOS writes it\n".encode())
    weights = weights_of(file)
    np.testing.assert_allclose(weights / weights[0], [1, 1, 5, 2.5], rtol=1e-6)
    assert weights @ COUNTS == pytest.approx(10)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cow: 2", "line 1: there is no class 'cow'; there are cat, dog, owl, käfer"),
        ("cat: 1\ndog: much", "line 2: the weight of 'dog' must be a number from 0 on"),
        ("cat: -1", "must be a number from 0 on"),
        ("cat: .inf", "must be a number from 0 on"),
        ("cat: 0\ndog: 0\nowl: 0", "no class that occurs counts"),
        ("just words", "holds no settings"),
    ],
)
def test_files_that_are_refused(tmp_path, text, error):
    file = tmp_path / "weights.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        weights_of(file)
    assert error in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_file_that_is_not_there_is_refused_before_the_data(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--class_weights", "balancd", "--data_dir", str(tmp_path / "none")])
    said = " ".join(capsys.readouterr().err.split())
    assert "--class_weights balancd cannot be read" in said
    assert "give none, balanced, or a file" in said
