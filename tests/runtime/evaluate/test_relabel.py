"""`--eval_labels`: the formats of label files, and how labels are matched with images."""

import json

import numpy as np
import pytest

from convoy.runtime.evaluate.relabel import label_table, names_for_labels, read_label_file
from convoy.utils.errors import ConfigError

PATHS = ["val/cat/b.jpg", "val/cat/a.jpg", "val/dog/c.jpg"]


@pytest.fixture
def table(tmp_path):
    """Returns the label table of a file with this content: text, or an object to write as JSON."""

    def make(content, names=PATHS, classes=10, class_names=None):
        path = tmp_path / "labels"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return label_table(read_label_file(str(path)), names, classes, class_names).tolist()

    return make


def test_a_list_of_labels_is_in_the_order_of_sorted_file_names(table):
    assert table([[1], [2], [3]]) == [[2], [1], [3]]
    assert table("1\n2\n3\n") == [[2], [1], [3]]


def test_without_file_names_a_list_of_labels_is_in_the_order_of_records(table):
    assert table([[1], 2, [3]], names=[None] * 3) == [[1], [2], [3]]


def test_an_image_can_have_several_labels_or_none(table):
    assert table([[5, 1, 5], [], [3]]) == [[-1, -1], [1, 5], [3, -1]]


@pytest.mark.parametrize(
    "content",
    [
        {"b.jpg": 2, "a.jpg": [1], "c.jpg": [3]},
        {"val/cat/b.jpg": 2, "cat/a.jpg": 1, "dog/c.jpg": 3, "b.jpg": 9},
        "a.jpg 1\nb.jpg 2\nc.jpg 3\n",
        "a.jpg\t1\nb.jpg\t2\nc.jpg\t3",
        "a.jpg, 1\n\ncat/b.jpg,2\nc.jpg,3\n",
    ],
    ids=["object", "paths", "space", "tab", "comma"],
)
def test_labels_by_file_name_can_be_in_any_order(table, content):
    assert table(content) == [[2], [1], [3]]


def test_an_image_that_the_file_does_not_name_is_left_out(table):
    assert table({"a.jpg": 1}) == [[-1], [1], [-1]]


def test_labels_can_be_class_names(table):
    names = ["tabby cat", "10", "dog"]
    kept = {"classes": 3, "class_names": names}
    assert table([["dog"], ["10", "tabby cat"], [1]], **kept) == [[0, 1], [2, -1], [1, -1]]
    assert table("a.jpg\ttabby cat\nb.jpg\tdog\nc.jpg\t1", **kept) == [[2], [0], [1]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([[1], [2]], "2 images.*split has 3"),
        ([[1], [2], [10]], "10 is not a class.*has 10"),
        ([[1], [2], [-1]], "-1 is not a class"),
        ([[1], [2], ["cow"]], "'cow' is not a class"),
        ([[1], [2], [1.5]], r"entry 2: \[1.5\] is neither"),
        ([[1], [2], {"a": 1}], "entry 2"),
        ({"d.jpg": 1}, "names none of the images.*d.jpg.*val/cat/b.jpg"),
        ([[], [], []], "no label for any image"),
        ("a.jpg 1\n2\n", "'2' has no file name"),
        ("", "is empty"),
        ("[1, 2", "cannot be read"),
        ("a.jpg --5", "'--5' is not a class"),
        ("a.jpg " + 5000 * "1", "is not a class"),
        ("a.jpg 1\nb.jpg 2\na.jpg 3", "'a.jpg' occurs 2 times"),
        ('{"a.jpg": 1, "a.jpg": 2}', "'a.jpg' occurs 2 times"),
    ],
)
def test_a_label_file_that_does_not_fit_is_refused_with_the_reason(table, content, words):
    with pytest.raises(ConfigError, match=f"--eval_labels .*{words}"):
        table(content)


def test_a_list_of_labels_is_refused_if_file_names_repeat(table):
    with pytest.raises(ConfigError, match=r"several images are called 1.jpg.*cat/1.jpg"):
        table([1, 2], names=["cat/1.jpg", "dog/1.jpg"])
    assert table({"cat/1.jpg": 1, "dog/1.jpg": 2}, names=["cat/1.jpg", "dog/1.jpg"]) == [[1], [2]]


def test_a_name_that_fits_several_images_is_refused(table):
    names = ["val/cat/1.jpg", "val/dog/1.jpg", "val/dog/2.jpg"]
    with pytest.raises(ConfigError, match=r"'1.jpg' fits several.*val/cat/1.jpg and val/dog/1.jpg"):
        table({"1.jpg": 3, "2.jpg": 1}, names=names)
    assert table({"cat/1.jpg": 3, "1.jpg": 2}, names=names) == [[3], [2], [-1]]


def test_class_names_come_from_the_checkpoint_or_the_data_or_imagenet():
    thousand = names_for_labels(None, ["0", "1", "10"], 1000)
    assert thousand[284] == "n02123597"  # Siamese cat
    assert names_for_labels(["b", "a"], ["a", "b"], 2) == ["b", "a"]
    assert names_for_labels(None, ["a", "b"], 2) == ["a", "b"]
    assert names_for_labels(None, ["a", "b"], 3) is None


def test_a_class_name_that_several_classes_share_is_refused(table):
    cranes = ["crane", "dog", "crane"]
    with pytest.raises(ConfigError, match=r"several classes .*'crane'.*numbers"):
        table([["dog"], ["crane"], [1]], classes=3, class_names=cranes)
    assert table([["dog"], [2], [0]], classes=3, class_names=cranes) == [[2], [1], [0]]


@pytest.mark.parametrize(
    "line", ["my photo, 1.jpg 5", "my photo, 1.jpg,5", "my photo, 1.jpg , 5", "my photo, 1.jpg\t5"]
)
def test_a_line_of_labels_is_split_at_its_last_separator(table, line):
    assert table(line, names=["my photo, 1.jpg"]) == [[5]]


def test_labels_by_file_name_are_refused_for_records_without_names(table):
    with pytest.raises(ConfigError, match="records keep no file names"):
        table({"a.jpg": 1}, names=["a.jpg", None])


def test_the_label_table_is_int32(tmp_path):
    path = tmp_path / "real.json"
    path.write_text("[[1], [0, 2]]")
    table = label_table(read_label_file(str(path)), [None, None], 3)
    assert table.dtype == np.int32
