"""Data that changed before a run is resumed: reported, matched by name, or refused."""

import pytest

from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.sources.find import find_source
from convoy.runtime.data import changed_data
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from tests.runtime.class_folders import write_class_folders


@pytest.fixture
def photos(tmp_path):
    """`photos("a", cat=3, dog=2)` makes a data_dir of class folders of images, and opens it."""
    from PIL import Image

    def make(name, **classes):
        def picture(label, i):
            return Image.new("RGB", (40, 40), (40 * i, 0, len(label)))

        return str(write_class_folders(tmp_path / name, {"train": classes}, picture))

    return make


def open_(data_dir):
    return find_source(data_dir, "train")


def loader(data_dir):
    options = InputOptions(image_size=32, batch_size=2, max_bad_examples=9)
    return Loader(open_(data_dir), options, training=True)


def saved(names, classes=None, **more):
    return {"class_names": names, "model": {"num_classes": classes or len(names)}, **more}


def adapted(state, source, accept=False):
    said = []
    config = Config(model_dir="runs/a", accept_changed_classes=accept)
    return changed_data.with_classes_of(state, config, said.append)(source), said


def test_unchanged_classes_leave_the_source_as_it_is(photos):
    source = open_(photos("a", cat=2, dog=2))
    found, said = adapted(saved(["cat", "dog"]), source)
    assert found is source
    assert said == []


def test_labels_are_renumbered_to_keep_the_old_classes_outputs(photos):
    found, said = adapted(saved(["owl", "cat", "dog"]), open_(photos("a", cat=1, dog=1, owl=1)))
    assert found.labels.tolist() == [1, 2, 0]
    assert found.class_names == ["owl", "cat", "dog"]
    assert "matched by name" in said[0]


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ({"dog": 1, "owl": 1, "zebra": 1}, "'cat' is gone, 'zebra' is new"),
        ({"dog": 1, "owl": 1}, "'cat' is gone"),
        ({"Cat": 1, "Dog": 1, "Owl": 1}, "'cat', 'dog', 'owl' are gone"),
    ],
    ids=["renamed", "removed", "all renamed"],
)
def test_removed_and_renamed_classes_are_refused(photos, classes, says):
    with pytest.raises(ConfigError, match=says) as raised:
        adapted(saved(["cat", "dog", "owl"]), open_(photos("a", **classes)))
    text = str(raised.value)
    assert "--accept_changed_classes" in text
    assert "--pretrained_from_file runs/a" in text
    assert "num_classes" not in text


def test_a_new_class_without_a_free_output_is_always_refused(photos):
    source = open_(photos("a", cat=1, dog=1, fox=1))
    for accept in (False, True):
        with pytest.raises(ConfigError, match=r"'fox' is new\), which has outputs for 2"):
            adapted(saved(["cat", "dog"]), source, accept)
    found, said = adapted(saved(["cat", "dog"], classes=4), source)  # --num_classes 4
    assert found.class_names == ["cat", "dog", "fox"]
    assert found.num_classes == 4
    assert said == ["the class 'fox' is new, and takes a free output"]


def test_with_accept_changed_classes_a_renamed_class_keeps_its_output(photos):
    """The new name's other place in the sorted list does not shift the other classes."""
    source = open_(photos("a", dog=1, owl=1, zebra=1))
    state = saved(["cat", "dog", "owl"])
    found, said = adapted(state, source, accept=True)
    assert found.class_names == ["zebra", "dog", "owl"]
    assert found.labels.tolist() == [1, 2, 0]
    assert said[0] == "WARNING: the class 'zebra' continues with the weights of 'cat'"
    assert "the best result so far is dropped" in said[1]
    assert changed_data.classes_changed(state, found.class_names)


def test_a_removed_class_is_accepted_once_and_keeps_the_best_result(photos):
    state = saved(["cat", "dog", "emu", "owl"])
    data_dir = photos("b", dog=1, emu=1, owl=1)
    found, said = adapted(state, open_(data_dir), accept=True)
    assert found.labels.tolist() == [1, 2, 3]
    assert said == ["WARNING: there are no training images of 'cat' any more"]
    assert not changed_data.classes_changed(state, found.class_names)
    data = loader(data_dir)
    data.source = found
    later = saved(["cat", "dog", "emu", "owl"], data=changed_data.facts(data))
    found, said = adapted(later, open_(data_dir))  # without the flag
    assert found.class_names == ["cat", "dog", "emu", "owl"]
    assert said == ["there are no training images of 'cat', as in the launch before"]
    with pytest.raises(ConfigError, match="'cat', 'dog' are gone"):
        adapted(later, open_(photos("c", emu=1, owl=1)))
    with pytest.raises(ConfigError, match="'cat' is gone, 'fox' is new"):
        adapted(later, open_(photos("d", dog=1, emu=1, fox=1, owl=1)))
    restored, _ = adapted(later, open_(photos("e", cat=1, dog=1, emu=1, owl=1)))
    assert list(restored.absent) == []


def test_class_names_that_appear_or_vanish_are_reported(photos, tmp_path, writers):
    found, said = adapted(saved(None, classes=2), open_(photos("a", cat=1, dog=1)))
    assert found.class_names == ["cat", "dog"]
    assert "name their classes now" in said[0]
    records = writers.dataset(tmp_path / "r", writers.digits(20), [])
    (records / "labels.txt").unlink()
    found, said = adapted(saved([str(i) for i in range(10)]), open_(str(records)))
    assert found.class_names == [str(i) for i in range(10)]
    assert said[0].startswith("WARNING: the data do not name their classes any more")


def test_changed_training_images_are_reported(photos, tmp_path):
    data_dir = photos("a", cat=3, dog=2)
    before = loader(data_dir)
    state = {"data": changed_data.facts(before), "offset": 2}
    assert changed_data.changes(state, before) == []
    folder = tmp_path / "a" / "train" / "cat"
    (folder / "0.jpg").rename(folder / "x.jpg")
    (line,) = changed_data.changes(state, loader(data_dir))
    assert "other training images than before, the same number (5)" in line
    assert "the rest of the unfinished epoch" in line
    (folder / "x.jpg").unlink()
    (line,) = changed_data.changes(state | {"offset": 0}, loader(data_dir))
    assert line.startswith("4 training images instead of 5")
    assert "unfinished" not in line
    older = {"data": {"train_examples": 5, "named": True}, "offset": 0}  # version 0.1
    assert changed_data.changes(older, loader(data_dir))[0].startswith("4 training images")
    assert (
        changed_data.changes({"data": {"train_examples": 4}, "offset": 0}, loader(data_dir)) == []
    )


def test_unreadable_images_are_remembered_by_their_content(photos, tmp_path):
    data_dir = photos("a", cat=5, dog=2)
    for name in ("cat/1.jpg", "cat/3.jpg", "dog/0.jpg"):
        (tmp_path / "a" / "train" / name).write_bytes(b"not a picture " + name.encode())
    before = loader(data_dir)
    list(before.batches(0))
    assert sorted(before.bad_examples) == [1, 3, 5]
    kept = changed_data.remember(before, before.bad_examples)
    assert changed_data.recall(open_(data_dir), kept) == (before.bad_examples, [])
    # One is deleted and one repaired, so the third gets another number.
    (tmp_path / "a" / "train" / "cat" / "1.jpg").unlink()
    good = (tmp_path / "a" / "train" / "cat" / "0.jpg").read_bytes()
    (tmp_path / "a" / "train" / "cat" / "3.jpg").write_bytes(good)
    found, lines = changed_data.recall(open_(data_dir), kept)
    assert list(found) == [4]
    assert "dog/0.jpg" in found[4]
    assert "no longer left out: 2 training images that could not be read before" in lines[0]
    # Version 0.1 stored them by number, with the file in the text.
    found, lines = changed_data.recall(
        open_(data_dir), {"4": found[4], "1": before.bad_examples[1]}
    )
    assert list(found) == [4]
    assert len(lines) == 1
