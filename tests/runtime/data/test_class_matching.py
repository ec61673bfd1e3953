"""Classes of data and model are matched by name; matching by number is always reported."""

from collections.abc import Sequence

import numpy as np
import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.source import Source
from convoy.runtime.data.class_matching import known_names, match_classes
from convoy.runtime.data.class_names import class_names, imagenet_classes
from convoy.utils.errors import ConfigError

DATA = "--data_dir photos"


class Labelled(Source):
    """A source of labels without images; with `inside` the labels are in the records."""

    def __init__(self, names: Sequence[str] | None, labels: Sequence[int], inside: bool = False):
        self.class_names = None if names is None else list(names)
        self.num_classes = None if names is None else len(names)
        self.stored = np.array(labels, np.int32)
        self.labels = None if inside else self.stored
        self.num_examples = len(labels)

    def read(self, indices):
        return [b"%d" % self.stored[i] for i in indices]

    def parse(self, raw, label):
        return raw, label if self.labels is not None else int(raw)

    def occurring_labels(self):
        return np.unique(self.stored).tolist()

    locate = span = find = list_digest = None


def labels_of(source):
    """Returns the labels that a loader would train on."""
    given = np.zeros(source.num_examples, int) if source.labels is None else source.labels
    raw = source.read(np.arange(source.num_examples))
    return [source.parse(content, label)[1] for content, label in zip(raw, given, strict=True)]


def matched(names, labels, trained, classes=None, inside=False, label_file=None):
    classes = classes or len(trained)
    source = Labelled(names, labels, inside)
    return match_classes(source, known_names(trained, classes, label_file), classes, DATA)


@pytest.mark.parametrize("inside", [False, True])
def test_labels_are_renumbered_by_class_name(inside):
    source, lines = matched(
        ["owl", "dog", "cat"], [0, 1, 2, 0], ["cat", "dog", "owl"], None, inside
    )
    assert labels_of(source) == [2, 1, 0, 2]
    assert lines == []
    source, lines = matched(["dog", "owl"], [0, 1, 1], ["cat", "dog", "owl"], None, inside)
    assert labels_of(source) == [1, 2, 2]
    assert source.class_names == ["cat", "dog", "owl"]
    assert lines == ["the data lack the class 'cat' of the model's 3 classes"]


def test_the_same_class_names_leave_the_source_as_it_is():
    source, lines = matched(["cat", "dog"], [0, 1], ["cat", "dog"])
    assert isinstance(source, Labelled)
    assert lines == []


def test_one_name_for_two_classes_is_refused_unless_the_models_classes_have_it_too():
    with pytest.raises(DataError, match="gives the class 'cat' to several class numbers"):
        matched(["cat", "cat", "owl"], [0, 1, 2], ["cat", "dog", "owl"])
    source, lines = matched(["crane", "owl", "crane"], [0, 1, 2], ["crane", "owl", "crane"])
    assert labels_of(source) == [0, 1, 2]
    assert lines == []


def test_a_class_that_the_model_lacks_is_refused_with_its_name():
    with pytest.raises(DataError) as raised:
        matched(["ant", "cat", "dog"], [0, 1, 2], ["cat", "dog", "owl"])
    text = str(raised.value)
    assert "--data_dir photos has images of the class 'ant', which the model does not know" in text
    assert "it knows cat, dog, owl" in text
    assert "--num_classes" not in text


@pytest.mark.parametrize("inside", [False, True])
def test_an_unknown_class_without_images_is_accepted(inside):
    source, lines = matched(["ant", "cat", "dog"], [1, 2, 1], ["cat", "dog", "owl"], None, inside)
    assert labels_of(source) == [0, 1, 0]
    assert lines == ["the data lack the class 'owl' of the model's 3 classes"]


def test_class_names_are_compared_after_unicode_normalisation():
    source, _ = matched(["ka\u0308fer", "dog"], [0, 1], ["dog", "käfer"])
    assert labels_of(source) == [1, 0]
    source, _ = matched(["dog", r"k\xe4fer"], [0, 1], ["k\udce4fer", "dog"])  # an older checkpoint
    assert labels_of(source) == [1, 0]


def test_a_name_that_two_classes_of_the_model_share_is_refused():
    with pytest.raises(DataError, match="has images of the class 'crane'"):
        matched(["crane"], [0], ["crane", "crane", "dog"])


def test_imagenets_synsets_and_names_are_matched_with_its_numbers():
    synsets = list(imagenet_classes())
    some = [synsets[i] for i in (0, 217, 482)]
    source, lines = matched(some, [0, 1, 2], None, 1000)
    assert labels_of(source) == [0, 217, 482]
    assert "the data lack the classes" in lines[0]
    source, _ = matched(["tench", "English springer"], [0, 1], None, 1000)
    assert labels_of(source) == [0, 217]
    source, _ = matched(["tench"], [0], some)  # a run on folders of synset ids
    assert labels_of(source) == [0]


def test_matching_with_a_model_without_class_names_is_reported():
    source, lines = matched(["10", "9"], [0, 1], None, 11)
    assert labels_of(source) == [10, 9]
    assert "taken for its numbers" in lines[0]
    source, lines = matched(["cat", "dog"], [0, 1], None, 2)
    assert labels_of(source) == [0, 1]
    assert lines[0].startswith("WARNING: the model does not name its classes")
    assert "0 cat, 1 dog" in lines[0]
    with pytest.raises(
        DataError, match=r"does not name its 3 classes, and .* has 2 .*--label_file"
    ):
        matched(["cat", "dog"], [0, 1], None, 3)


def test_a_label_file_gives_the_models_class_names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog\nowl\n")
    source, _ = matched(["dog", "owl"], [0, 1], None, 3, label_file=str(file))
    assert labels_of(source) == [1, 2]
    # The label file's names also count for a run that has names of its own.
    file.write_text("Katze\nHund\nEule\n")
    source, _ = matched(["Hund"], [0], ["cat", "dog", "owl"], label_file=str(file))
    assert labels_of(source) == [1]


def test_a_label_file_with_the_models_names_in_another_order_is_refused(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("owl\ndog\ncat\n")
    learnt, refused = ["cat", "dog", "owl"], r"another order: line 1 is 'owl', and .* as 'cat'"
    with pytest.raises(ConfigError, match=refused):
        class_names(learnt, 3, str(file))
    with pytest.raises(ConfigError, match=refused):
        known_names(learnt, 3, str(file))
    file.write_text("cat\ndog\nowl\n")
    assert class_names(learnt, 3, str(file)) == learnt


def test_data_without_class_names_are_matched_by_number_with_a_note():
    source, lines = matched(None, [0, 1], ["cat", "dog"], inside=True)
    assert labels_of(source) == [0, 1]
    assert "does not name its classes (labels.txt would)" in lines[0]
    assert matched(None, [0, 1], None, 2, inside=True)[1] == []
    source = Labelled(None, [0])
    source.num_classes = 4
    with pytest.raises(DataError, match="has 4 classes, and the model 3"):
        match_classes(source, [["a", "b", "c"]], 3, DATA)
