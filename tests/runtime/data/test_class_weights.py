"""`--class_weights`: the weights of classes in the training loss, and files that are refused."""

import numpy as np
import pytest

from convoy.dataloader.bad_images.replacement import grey_png
from convoy.runtime.data.class_weights import changed_weights, check_class_weights, class_weights
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from main import main

COUNTS = np.array([6, 3, 1, 0])


class Labels:
    def all_labels(self):
        return np.repeat([0, 1, 2, -1], [6, 3, 1, 2])


class Data:
    num_classes, class_names = 4, ["cat", "dog", "owl", "käfer"]

    source = Labels()


def weights_of(setting):
    return class_weights(Config(class_weights=str(setting)), Data())


def test_balanced_weights_give_classes_equal_sums_and_examples_a_mean_of_1():
    assert weights_of("none") is None
    weights = weights_of("balanced")
    np.testing.assert_allclose(weights * COUNTS, [10 / 3, 10 / 3, 10 / 3, 0], rtol=1e-6)


def test_weights_from_a_file_are_matched_by_class_name(tmp_path):
    file = tmp_path / "weights.yaml"
    file.write_bytes("\ufeffowl: 5\nka\u0308fer: 2.5   # as macOS writes it\n".encode())
    weights = weights_of(file)
    np.testing.assert_allclose(weights / weights[0], [1, 1, 5, 2.5], rtol=1e-6)
    assert weights @ COUNTS == pytest.approx(10)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cow: 2", "line 1: there is no class 'cow'; there are cat, dog, owl, käfer"),
        ("cat: 1\ndog: much", "line 2: the weight of 'dog' must be a number of at least 0"),
        ("cat: -1", "must be a number of at least 0"),
        ("cat: .inf", "must be a number of at least 0"),
        ("cat: 0\ndog: 0\nowl: 0", "every class that has images has the weight 0"),
        ("just words", "holds no weights of classes, which are lines such as `cat: 2.0`"),
        ("- cat\n- dog", "holds no weights of classes, which are lines such as `cat: 2.0`"),
        ("# none yet", "holds no weights of classes, which are lines such as `cat: 2.0`"),
        ("cat: 1\ncat: 2", "line 2: cat is set twice"),
    ],
)
def test_a_bad_file_of_class_weights_is_refused_with_its_line(tmp_path, text, error):
    file = tmp_path / "weights.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        weights_of(file)
    assert error in str(refused.value)
    assert f"--class_weights {file}" in str(refused.value)


def test_class_names_that_yaml_reads_as_numbers_or_booleans_are_matched(tmp_path, monkeypatch):
    file = tmp_path / "weights.yaml"
    file.write_text("1: 5\nyes: 2")
    monkeypatch.setattr(Data, "class_names", ["0", "1", "2", "yes"])
    weights = weights_of(file)
    np.testing.assert_allclose(weights / weights[0], [1, 5, 1, 2], rtol=1e-6)


def test_a_missing_file_of_class_weights_is_refused_before_the_data(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--class_weights", "balancd", "--data_dir", str(tmp_path / "none")])
    said = " ".join(capsys.readouterr().err.split())
    assert "--class_weights balancd cannot be read" in said
    assert "give none, balanced, or a file" in said


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_balanced_class_weights_are_refused_with_balanced_sampling(tmp_path, capsys, sampling):
    with pytest.raises(SystemExit) as ended:
        main(["--class_weights", "balanced", "--sampling", sampling, "--data_dir", str(tmp_path)])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--class_weights balanced and --sampling {sampling} would both make up" in said
    file = tmp_path / "weights.yaml"
    file.write_text("cat: 2")
    check_class_weights(Config(class_weights=str(file), sampling=sampling))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cow: 2", "line 1: there is no class 'cow'; there are cat, dog"),
        ("cat: 0\ndog: 0", "every class that has images has the weight 0"),
    ],
)
def test_class_weights_that_do_not_fit_the_class_folders_end_with_2(tmp_path, capsys, text, error):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_bytes(grey_png())
    file = tmp_path / "weights.yaml"
    file.write_text(text)
    args = ["--mode", "train", "--data_dir", str(tmp_path), "--model_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main([*args, "--class_weights", str(file)])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--class_weights {file}" in said
    assert error in said


def test_weights_that_a_resume_changes_are_told():
    now = np.array([1, 0.5, 2], np.float32)
    names = ["cat", "dog", "owl"]
    assert changed_weights([1.0, 0.5, 2.0], now, names) == ""
    said = changed_weights([1.0, 5.0, 1.0], now, names)
    assert said.endswith("dog 0.5 instead of 5, owl 2 instead of 1")
    assert changed_weights(None, now, names) == changed_weights([1.0, 1.0, 1.0], None, names) == ""
