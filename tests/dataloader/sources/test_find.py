"""Finding and reading data on disk, compared with TensorFlow's writer and reader."""

import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.bad_images.replacement import grey_png
from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.folders import FolderSource
from convoy.dataloader.sources.tfrecords import TFRecordSource
from convoy.dataloader.tfrecord import crc, random_access
from tests import records
from tests.dataloader.packing import encoded
from tests.records import write


@pytest.fixture
def cache(tmp_path):
    """The folder in which indices are cached."""
    return tmp_path / "cache" / "convoy" / "index"


def jpeg(level=100, size=(20, 30)):
    return encoded(Image.new("RGB", size, (level, level, level)))


def example(image, label, keys=("image/encoded", "image/class/label")):
    return records.example(dict(zip(keys, (image, label), strict=True)))


def parsed(source, i):
    label = 0 if source.labels is None else source.labels[i]
    return source.parse(source.read(np.array([i]))[0], label)


def test_records_equal_tensorflows(data):
    rng = np.random.default_rng(0)
    payloads = [example(rng.bytes(int(rng.integers(0, 5000))), 1 + i) for i in range(57)]
    files = [write(data / f"train-{k:05d}-of-00003", payloads[k * 19 :][:19]) for k in range(3)]
    source = find_source(data, "train")
    assert source.files == files
    assert source.num_examples == 57
    order = rng.permutation(57)
    assert source.read(order) == [payloads[i] for i in order]
    assert source.num_classes is None
    assert parsed(source, 3)[1] == 3  # labels are stored from 1
    assert source.describe(19) == f"{files[1]}, record at byte 0"


def test_the_number_of_open_files_is_limited(data):
    files = [write(data / f"train-{k}", [b"x" * k]) for k in range(10)]
    reader = random_access.RecordReader(files, random_access.index_files(files), max_open=3)
    for _ in range(2):
        assert [len(reader.read(k)) for k in range(10)] == list(range(10))
    assert len(reader._open) == 3


def test_the_layout_of_tfds_is_read(data):
    keys = ("image", "label")
    for split, count in [("train", 4), ("test", 2)]:
        payloads = [example(jpeg(), i, keys) for i in range(count)]
        write(data / f"beans-{split}.tfrecord-00000-of-00001", payloads)
    (data / "label.labels.txt").write_text("angular\nrust\nhealthy\nx\n")
    (data / "dataset_info.json").write_text("{}")
    source = find_source(str(data), "train")
    assert source.class_names == ["angular", "rust", "healthy", "x"]
    assert source.num_classes == 4
    assert [parsed(source, i)[1] for i in range(4)] == [0, 1, 2, 3]
    assert find_source(str(data), "validation").num_examples == 2
    write(data / "beans-validation.tfrecord-00000-of-00001", [example(jpeg(), 0, keys)])
    # A validation split is preferred to test.
    assert find_source(str(data), "validation").num_examples == 1


def test_the_label_offset_is_added_and_the_replacement_image_is_grey(data):
    source = TFRecordSource([write(data / "train-0", [example(b"", 7)])], label_offset=-5)
    assert parsed(source, 0)[1] == 2
    assert (tf.io.decode_image(grey_png(), channels=3).numpy() == 128).all()


def test_other_files_are_ignored(data):
    write(data / "train-00000-of-00001", [example(b"a", 1)])
    for name in (".train-00000-of-00001.tmp", "train-00000-of-00001.idx", "train-0.index"):
        (data / name).write_bytes(b"rubbish")
    (data / "train-notes").mkdir()
    assert find_source(data, "train").num_examples == 1


def test_val_files_are_the_validation_split(data):
    write(data / "val-00000-of-00001", [example(b"a", 1)] * 3)
    assert find_source(data, "validation").num_examples == 3


@pytest.mark.parametrize("left", [1, 11, 12, 40])
def test_a_truncated_record_is_damaged_and_the_others_are_read(data, left):
    payload = example(jpeg(), 1)
    path = write(data / "train-00000-of-00001", [payload, payload])
    start = len(payload) + 16
    with open(path, "r+b") as file:
        file.truncate(start + left)
    source = find_source(data, "train")
    assert source.num_examples == 2
    assert source.read(np.array([0])) == [payload]
    assert list(source.damage) == [1]
    assert f"{path}, record at byte {start}: the file is cut short" in source.damage[1]
    with pytest.raises(RecordError, match=f"{left} bytes after its beginning"):
        source.read(np.array([1]))


@pytest.mark.parametrize("at", [0, 7, 11])
def test_a_damaged_header_costs_one_record(data, at, cache):
    payloads = [example(jpeg(), i) for i in range(1, 6)]
    path = write(data / "train-00000-of-00001", payloads)
    start = 2 * (len(payloads[0]) + 16)
    with open(path, "r+b") as file:
        file.seek(start + at)
        byte = file.read(1)[0]
        file.seek(start + at)
        file.write(bytes([byte ^ 0x20]))
    for _ in range(2):  # first from the file, then from the cache
        source = find_source(data, "train")
        assert source.num_examples == 5
        good = np.array([0, 1, 3, 4])
        assert source.read(good) == [payloads[i] for i in good]
        assert f"record at byte {start}: the record's header is damaged" in source.damage[2]
    assert len(list(cache.iterdir())) == 1


def test_damage_over_several_records_costs_only_those(data, monkeypatch):
    """The search for the next header reads in pieces and must work across their borders."""
    rng = np.random.default_rng(0)
    payloads = [example(rng.bytes(n), 1) for n in rng.integers(200, 900, 60)]
    content = bytearray(Path(write(data / "train-0", payloads)).read_bytes())
    ends = np.cumsum([len(payload) + 16 for payload in payloads])
    content[ends[4] + 3 : ends[30] - 7] = rng.bytes(int(ends[30] - ends[4] - 10))
    (data / "train-0").write_bytes(content)
    for piece in (1 << 22, 4096, 33):
        monkeypatch.setattr(random_access, "_SEARCH_BYTES", piece)
        offsets, lengths = random_access.walk(str(data / "train-0"))
        assert offsets.tolist() == [0, *ends[:5], *ends[30:-1]]
        assert lengths[5] == ends[4] - ends[30]
    (data / "train-0").write_bytes(bytes(content) + bytes(5000))  # zeros as after a full disk
    assert random_access.walk(str(data / "train-0"))[1].tolist()[-1] == -5000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello, this is plain text and no TFRecord", "not a TFRecord file"),
        (bytes(100_000), "not a TFRecord file"),
        (b"\x1f\x8b" + bytes(50), "gunzip"),
    ],
)
def test_files_that_hold_no_records_are_refused(data, content, words):
    (data / "train-00000-of-00001").write_bytes(content)
    with pytest.raises(DataError, match=words):
        find_source(data, "train")


def test_checksums_equal_tensorflows(data):
    path = write(data / "a", [b"z" * n for n in (0, 1, 300, 70_000)])
    with open(path, "rb") as file:
        content = file.read()
    offsets, lengths = random_access.walk(path)
    assert lengths.tolist() == [0, 1, 300, 70_000]
    for offset, length in zip(offsets, lengths, strict=True):
        payload = np.frombuffer(content, np.uint8, length, offset + 12)
        stored = int.from_bytes(content[offset + 12 + length :][:4], "little")
        assert crc.masked_rows(payload[None])[0] == stored
        assert crc.masked(payload.tobytes()) == stored


def test_unknown_keys_are_named_in_the_error(data):
    write(data / "train-0", [example(b"", 1, ("picture", "species"))])
    with pytest.raises(DataError, match="keys picture, species; expected 'image/encoded'"):
        find_source(data, "train")
    write(data / "train-0", [b"\xff\xff\xff no proto"])
    with pytest.raises(DataError, match=r"not a serialized tf\.train\.Example"):
        find_source(data, "train")


def test_a_file_without_records_is_refused(data):
    write(data / "train-00000-of-00001", [])
    with pytest.raises(DataError, match="hold no records"):
        find_source(data, "train")


def test_an_unusable_data_folder_is_refused_with_the_reason(tmp_path, data):
    with pytest.raises(DataError, match=r"--data_dir .*nowhere does not exist.*train-\*"):
        find_source(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="--data_dir"):
        find_source(None, "train")
    with pytest.raises(DataError, match=r"--data_dir .* is empty\. --data_dir should hold"):
        find_source(data, "train")
    (data / "readme").write_text("")
    with pytest.raises(DataError, match=r"no data for the train split \(found: readme\)"):
        find_source(data, "train")
    write(data / "train-0", [example(b"", 1)])
    with pytest.raises(DataError, match="has a train split but no validation split"):
        find_source(data, "validation")
    with pytest.raises(DataError, match="is not a folder"):
        find_source(data / "readme", "train")
    with pytest.raises(ValueError, match="'test'"):
        find_source(data, "test")
    (data / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="holds both"):
        find_source(data, "train")


def test_missing_shards_warn_and_mixed_sets_are_refused(data, caplog):
    write(data / "train-00000-of-00004", [example(b"", 1)])
    with caplog.at_level(logging.WARNING, "convoy.data"):
        find_source(data, "train")
    assert "3 of the 4 shards" in caplog.text
    write(data / "train-00000-of-00002", [example(b"", 1)])
    with pytest.raises(DataError, match=r"train-\*-of-2, train-\*-of-4"):
        find_source(data, "train")


def test_the_index_is_cached_until_a_file_changes_or_the_cache_is_damaged(data, cache):
    path = write(data / "train-0", [example(b"a", 1)] * 3)
    assert find_source(data, "train").num_examples == 3
    (stored,) = cache.iterdir()
    before = stored.stat().st_mtime_ns
    assert find_source(data, "train").num_examples == 3
    assert stored.stat().st_mtime_ns == before  # read, not written again
    for damage in (b"", b"rubbish", stored.read_bytes()[:-50]):
        stored.write_bytes(damage)
        assert find_source(data, "train").num_examples == 3
    write(path, [example(b"a", 1)] * 4)
    assert find_source(data, "train").num_examples == 4


def test_an_unusable_cache_folder_is_ignored(data, tmp_path, monkeypatch):
    write(data / "train-0", [example(b"a", 1)])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    assert find_source(data, "train").num_examples == 1


def test_a_stale_index_never_returns_the_wrong_record(data):
    def sized(*lengths):
        return [b"\0" * length for length in lengths]

    path = write(data / "train-0", sized(1, 5, 6, 2))
    index = random_access.index_files([path])
    stat = os.stat(path)
    write(path, sized(1, 6, 5, 2))  # the same size, and below the same time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # The first and last record fit, so the cached index is used, but not against a record itself.
    for old in (index, random_access.index_files([path])):
        with pytest.raises(RecordError, match="changed after it was indexed"):
            random_access.RecordReader([path], old).read(1)
    write(path, sized(2, 6, 5, 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert random_access.index_files([path]).lengths.tolist() == [2, 6, 5, 1]


def test_class_folders_are_read_with_sorted_classes(data):
    for split, classes in [("train", "cat dog owl"), ("val", "dog owl")]:
        for name in classes.split():
            (data / split / name / "images").mkdir(parents=True)
            (data / split / name / "one.JPEG").write_bytes(jpeg())
            (data / split / name / "images" / "two.png").write_bytes(b"png")
            (data / split / name / ".hidden.jpg").write_bytes(b"")
            (data / split / name / "notes.txt").write_text("")
    (data / "train" / ".cache").mkdir()
    train, val = find_source(data, "train"), find_source(data, "validation")
    assert isinstance(train, FolderSource)
    assert train.class_names == val.class_names == ["cat", "dog", "owl"]
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.labels.dtype == np.int32
    assert val.labels.tolist() == [1, 1, 2, 2]
    assert val.describe(0) == str(data / "val" / "dog" / "images" / "two.png")
    assert val.read(np.array([1, 0])) == [jpeg(), b"png"]
    assert parsed(val, 2) == (b"png", 2)
    os.unlink(val.files[0])
    with pytest.raises(RecordError, match="No such file"):
        val.read(np.array([0]))


def test_empty_or_unknown_class_folders_are_refused(data, caplog):
    for name in ("cat", "dog"):
        (data / "train" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"train/cat: no image"):
        find_source(data, "train")
    for name in ("cat", "dog"):
        (data / "train" / name / "a.jpg").write_bytes(jpeg())
    (data / "validation" / "cow").mkdir(parents=True)
    (data / "validation" / "cow" / "a.jpg").write_bytes(jpeg())
    with pytest.raises(DataError, match=r"validation/cow: 'cow' is not a class .*\(cat, dog\)"):
        find_source(data, "validation")
    os.rename(data / "train", data / "elsewhere")
    with caplog.at_level(logging.WARNING, "convoy.data"):
        assert find_source(data, "validation").class_names == ["cow"]
    assert "no train folder" in caplog.text
    (data / "labels.txt").write_text("bee\ncow\n")
    assert find_source(data, "validation").labels.tolist() == [1]


def test_indexing_does_not_import_tensorflow(data):
    write(data / "train-0", [example(b"a", 1)])
    code = (
        "import sys, dataloader\n"
        f"assert dataloader.find_source({str(data)!r}, 'train').num_examples == 1\n"
        "assert issubclass(dataloader.DataError, ValueError)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_too_many_open_files_is_an_error_and_no_bad_example(folders):
    """The image is not the cause, and the next one would fail too."""
    source = find_source(str(folders), "train")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        with pytest.raises(OSError, match="Too many open files"):
            source.read(np.array([0]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
