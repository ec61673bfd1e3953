"""Prepared TensorFlow Datasets, compared with tensorflow_datasets where it is installed."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.errors import DataError
from convoy.dataloader.loader import InputOptions, Loader
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.tfds import TFDSSource
from convoy.dataloader.tfrecord.example import encode_example
from tests.dataloader.packing import encoded


def jpeg(i):
    return encoded(Image.new("RGB", (24, 20 + i % 3), (i * 7 % 256, 100, 50)))


def feature(kind, **more):
    return {"pythonClassName": f"tensorflow_datasets.core.features.{kind}", **more}


FEATURES = {
    "image": feature("image_feature.Image", image={}),
    "label": feature("class_label_feature.ClassLabel", classLabel={"numClasses": "3"}),
    "file_name": feature("text_feature.Text"),
}


def prepared(root, name="shapes", version="1.0.0", features=FEATURES, counts=(7, 4), **info):
    """Makes a folder as TFDS writes it, with two training shards and one test shard."""
    folder = root / name / version
    folder.mkdir(parents=True)
    splits = []
    for split, shards in (("train", counts), ("test", (5,))):
        splits.append({"name": split, "shardLengths": [str(n) for n in shards]})
        first = 0
        for k, n in enumerate(shards):
            path = folder / f"{name}-{split}.tfrecord-{k:05d}-of-{len(shards):05d}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for i in range(first, first + n):
                    keys = {"image": jpeg(i), "label": i % 3, "file_name": b"x"}
                    writer.write(encode_example(keys))
            first += n
    described = {"name": name, "splits": splits, "version": version, "fileFormat": "tfrecord"}
    (folder / "dataset_info.json").write_text(json.dumps(described | info))
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "label.labels.txt").write_text("ant\nbee\ncow\n")
    return folder


def test_the_newest_prepared_version_is_read_unless_one_is_named(tmp_path):
    prepared(tmp_path, version="1.9.0")
    newest = prepared(tmp_path, version="1.10.0")
    source = find_source(tmp_path, "train", "tfds:shapes")
    assert isinstance(source, TFDSSource)
    assert source.folder == str(newest)
    assert (source.num_examples, source.num_classes) == (11, 3)
    assert source.class_names == ["ant", "bee", "cow"]
    assert find_source(tmp_path, "validation", "tfds:shapes").num_examples == 5
    assert "1.9.0" in find_source(tmp_path, "train", "tfds:shapes:1.9.0").folder
    assert find_source(newest, "train", "tfds:shapes").num_examples == 11
    (newest / "label.labels.txt").unlink()
    source = find_source(tmp_path, "train", "tfds:shapes")
    assert (source.class_names, source.num_classes) == (None, 3)  # features.json has the number
    for i, raw in enumerate(source.read(np.arange(11))):
        assert source.parse(raw, 0) == (jpeg(i), i % 3)


def test_three_ranks_read_every_example_once(tmp_path):
    prepared(tmp_path)
    source = find_source(tmp_path, "train", "tfds:shapes")
    options = InputOptions(image_size=16, batch_size=2, num_workers=1)
    counts = np.zeros(3)
    for rank in range(3):
        loader = Loader(source, options, training=True, rank=rank, world=3)
        for _, labels, weights in loader.batches(0):
            counts += np.bincount(labels, weights, 3)
    assert counts.tolist() == [4, 4, 3]


def test_unusable_data_sets_are_refused_with_the_reason(tmp_path):
    def refused(words, dataset="tfds:shapes", folder=tmp_path):
        with pytest.raises(DataError, match=words):
            find_source(folder, "train", dataset)

    refused(r"--dataset tfds:a b: expected tfds:NAME", "tfds:a b")
    refused("not prepared .*there is no such folder.*--download")
    folder = prepared(tmp_path)
    refused("it has version 1.0.0", "tfds:shapes:2.0.0")
    refused("holds the TFDS data set 'shapes', not 'flowers'", "tfds:flowers", folder)
    (tmp_path / "deep" / "small" / "1.0.0").mkdir(parents=True)
    refused("but small: name a config", "tfds:deep")
    boxes = {"image": FEATURES["image"], "box": feature("bounding_boxes.BBoxFeature")}
    prepared(tmp_path, "boxes", features=boxes)
    refused("expected one feature of kind ClassLabel, found none", "tfds:boxes")
    prepared(tmp_path, "arrays", fileFormat="array_record")
    refused("stored as array_record", "tfds:arrays")
    prepared(tmp_path, "fewer", splits=[{"name": "train", "shardLengths": ["7", "5"]}])
    refused("promises 12 examples of split train and the files hold 11", "tfds:fewer")
    prepared(tmp_path, "gone", splits=[{"name": "train", "shardLengths": ["7", "4", "1"]}])
    refused(r"gone-train.tfrecord-00000-of-00003 is missing", "tfds:gone")
    (folder / "dataset_info.json").write_text("[")
    refused("dataset_info.json: cannot be read as JSON")


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_examples_equal_those_of_tensorflow_datasets(tmp_path, kind):
    """TFDS writes a data set in several shards and reads all its examples."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    from tensorflow_datasets.core.dataset_builders.adhoc_builder import store_as_tfds_dataset

    rng = np.random.default_rng(0)
    kinds = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format=kind)}
    kinds["label"] = tfds.features.ClassLabel(names=["c", "a", "b"])
    pixels = [rng.integers(0, 256, (9 + i % 4, 12, 3), np.uint8) for i in range(40)]
    examples = [(i, {"image": image, "label": i % 3}) for i, image in enumerate(pixels)]
    store_as_tfds_dataset(
        name="noise",
        version="1.2.3",
        features=tfds.features.FeaturesDict(kinds),
        split_datasets={"train": examples[:33], "validation": examples[33:]},
        data_dir=str(tmp_path),
    )
    builder = tfds.builder("noise", data_dir=str(tmp_path))
    for ours, theirs in (("train", "train"), ("validation", "validation")):
        source = find_source(tmp_path, ours, "tfds:noise")
        assert source.num_examples == builder.info.splits[theirs].num_examples
        assert source.class_names == builder.info.features["label"].names
        expected = builder.as_dataset(split=theirs, shuffle_files=False)
        raw = source.read(np.arange(source.num_examples))
        for one, example in zip(raw, expected, strict=True):
            image, number = source.parse(one, 0)
            assert number == int(example["label"])
            pixels = tf.io.decode_image(image, channels=3)
            assert (pixels.numpy() == example["image"].numpy()).all()
