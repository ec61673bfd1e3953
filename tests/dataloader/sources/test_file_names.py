"""File names of examples, from folders and from records that TensorFlow wrote."""

import pytest

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.file_names import file_names
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.tfrecords import TFRecordSource
from tests.records import example, write


def record(label, **names):
    """Returns an Example with these file names by key; its image is never decoded."""
    features = {"image/encoded": b"x", "image/class/label": label}
    return example(features | {key: name.encode() for key, name in names.items()})


@pytest.fixture
def records(tmp_path):
    """A function that returns a source of these serialized examples."""

    def source(*examples):
        return TFRecordSource([write(tmp_path / "validation-00000-of-00001", examples)])

    return source


def test_file_names_of_class_folders_are_paths(folders):
    source = find_source(str(folders), "validation")
    want = [str(folders / "val" / name / "1.jpg") for name in ("cat", "dog")]
    assert file_names(source, range(2)) == want


def test_file_names_of_records_are_those_that_their_writer_stored(records):
    source = records(
        record(1, **{"image/filename": "ILSVRC2012_val_00000001.JPEG"}),
        record(2, file_name="é.jpg"),
        record(3),
    )
    assert file_names(source, [2, 1, 0]) == [None, "é.jpg", "ILSVRC2012_val_00000001.JPEG"]


def test_a_damaged_record_is_named_by_its_place(records):
    source = records(record(1), b"\xff\xff")
    with pytest.raises(DataError, match="validation-00000-of-00001, record at byte"):
        file_names(source, [1])
