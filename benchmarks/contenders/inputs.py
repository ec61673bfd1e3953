"""Runs whole input pipelines for training: from files to batches.

Every contender shuffles the same 1,024 photographs (photographs.py) endlessly and yields batches of
64 uint8 images of 224 × 224 pixels: a random-resized crop of 5 to 100 % of the area (Keras' layers
have no such crop), a flip, and the `augmenter` ("none", "autoaugment" or "randaugment").

All may use all cores, and prefetch by their defaults. The benchmark only takes batches, so their
queues are empty at the end of a turn as at its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.contenders.photographs import prepared
from benchmarks.harness.contender import Contender

SIZE, BATCH, AREA, RATIO = 224, 64, (0.05, 1.0), (0.75, 1.333)
ENDLESS = 10**6  # batches
CORES = len(os.sched_getaffinity(0))


def _taking(batches: Iterable[Any], facts: dict[str, Any], warmup: int = 10) -> Contender:
    """Returns a contender that takes one batch per iteration.

    Raises:
        ValueError: a batch has another size, shape or dtype.
    """
    batches = iter(batches)
    for _ in range(warmup):
        images = next(batches)[0]
    sides, kind = tuple(images.shape[1:]), str(images.dtype).lower()
    if len(images) != BATCH or sorted(sides) != [3, SIZE, SIZE] or "uint8" not in kind:
        raise ValueError(f"expected {BATCH} uint8 images of {SIZE} px, not {kind} {images.shape}")

    def turn(count: int) -> None:
        for _ in range(count):
            next(batches)

    return Contender(turn, items=BATCH, facts=facts)


def ours(augmenter: str, data_backend: str) -> Contender:
    """Runs our loader, as built for `--data_backend tfdata|dali-cpu --augmenter_name …`."""
    if data_backend == "dali-cpu":
        import nvidia.dali  # noqa: F401 - raises if DALI is not installed

    from convoy.dataloader import native
    from convoy.runtime.builders.inputs import build_loader
    from convoy.runtime.settings.config import Config
    from convoy.utils.distributed import ranks

    ranks.init()
    settings: dict[str, Any] = {
        "data_dir": str(prepared() / "records"),
        "data_backend": data_backend,
        "augmenter_name": augmenter,
        "image_size": SIZE,
        "train_batch_size": BATCH,
        "steps_per_epoch": ENDLESS,
        "crop_area_min": AREA[0],
        "crop_area_max": AREA[1],
        "crop_ratio_min": RATIO[0],
        "crop_ratio_max": RATIO[1],
    }
    return _taking(
        build_loader(Config(**settings), "train").batches(0), {"native": native.status()}
    )


def _examples(tf: Any) -> Any:
    """Returns an endless data set of (encoded image, label from 0), as in TensorFlow's guides."""
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> tuple[Any, Any]:
        parsed = tf.io.parse_single_example(record, features)
        return parsed["image/encoded"], parsed["image/class/label"] - 1

    files = tf.data.Dataset.list_files(str(prepared() / "records" / "train-*-of-?????"))
    records = files.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
    return records.repeat().shuffle(1024).map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def tf_image(augmenter: str) -> Contender:
    """Runs tf.data and tf.image as most programs do: decodes only the crop, then uses float32."""
    import tensorflow as tf

    from benchmarks.contenders import float_autoaugment

    augment: Callable = getattr(float_autoaugment, augmenter, lambda image, seed: image)

    def example(encoded: Any, label: Any) -> tuple[Any, Any]:
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            area_range=AREA,
            aspect_ratio_range=RATIO,
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, [SIZE, SIZE]))
        seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        return tf.cast(augment(image, seed), tf.uint8), label

    batches = _examples(tf).map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    return _taking(batches.prefetch(tf.data.AUTOTUNE), {"tensorflow": tf.__version__})


def keras_layers(augmenter: str) -> Contender:
    """Runs Keras' preprocessing layers on batches in tf.data, as in Keras' guides.

    Keras has neither a random-resized crop nor AutoAugment. Here it resizes the short side to 256
    pixels and crops the same window of 224 pixels from all images of a batch. Its RandAugment draws
    two of eleven operations per batch, and computes all eleven in both steps.
    """
    import keras
    import tensorflow as tf

    resize = keras.layers.Resizing(256, 256, crop_to_aspect_ratio=True, dtype="uint8")
    layers = [keras.layers.RandomCrop(SIZE, SIZE), keras.layers.RandomFlip("horizontal")]
    if augmenter == "randaugment":
        layers.append(keras.layers.RandAugment(num_ops=2, factor=0.5))

    def example(encoded: Any, label: Any) -> tuple[Any, Any]:
        image = tf.io.decode_jpeg(encoded, channels=3)
        return resize(tf.ensure_shape(image, [None, None, 3])), label

    def augment(images: Any, labels: Any) -> tuple[Any, Any]:
        for layer in layers:
            images = layer(images, training=True)
        return tf.cast(images, tf.uint8), labels

    batches = _examples(tf).map(example, num_parallel_calls=tf.data.AUTOTUNE)
    batches = batches.batch(BATCH, drop_remainder=True)
    batches = batches.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return _taking(batches.prefetch(tf.data.AUTOTUNE), {"keras": keras.__version__})


def pil_loader(augmenter: str) -> Contender:
    """Runs torchvision's transforms on Pillow images, with one worker process per core."""
    from benchmarks.contenders.pytorch import import_torch

    torch = import_torch()
    import PIL
    import torchvision
    from torchvision import transforms

    steps = [
        transforms.RandomResizedCrop(SIZE, scale=AREA, ratio=RATIO),
        transforms.RandomHorizontalFlip(),
    ]
    if augmenter == "autoaugment":
        steps.append(transforms.AutoAugment(transforms.AutoAugmentPolicy.IMAGENET))
    elif augmenter == "randaugment":
        steps.append(transforms.RandAugment(num_ops=2, magnitude=10))
    steps.append(transforms.PILToTensor())
    dataset = torchvision.datasets.ImageFolder(
        str(prepared() / "files" / "train"), transforms.Compose(steps)
    )
    sampler = torch.utils.data.RandomSampler(dataset, num_samples=ENDLESS * BATCH)
    loader = torch.utils.data.DataLoader(
        dataset, BATCH, sampler=sampler, num_workers=CORES, drop_last=True
    )
    versions = {"torchvision": torchvision.__version__, "pillow": PIL.__version__}
    return _taking(loader, versions | {"torch": torch.__version__, "workers": CORES})


def dali_alone(augmenter: str) -> Contender:
    """Runs a pipeline of DALI alone, on the CPU: DALI's reader, crops and policies."""
    import numpy as np
    import nvidia.dali as dali
    from nvidia.dali import fn, tfrecord, types
    from nvidia.dali.auto_aug import auto_augment, rand_augment

    files = sorted(str(path) for path in (prepared() / "records").glob("train-*-of-?????"))
    features = {
        "image/encoded": tfrecord.FixedLenFeature((), tfrecord.string, ""),
        "image/class/label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
    }

    @dali.pipeline_def(enable_conditionals=True)
    def pipeline() -> Any:
        read = fn.readers.tfrecord(
            path=files,
            index_path=[f"{file}.idx" for file in files],
            features=features,
            random_shuffle=True,
            initial_fill=1024,
            name="reader",
        )
        images = fn.decoders.image_random_crop(
            read["image/encoded"],
            device="cpu",
            output_type=types.RGB,
            random_area=AREA,
            random_aspect_ratio=RATIO,
        )
        images = fn.resize(images, size=[SIZE, SIZE], antialias=False)
        images = fn.flip(images, horizontal=fn.random.coin_flip())
        if augmenter == "autoaugment":
            images = auto_augment.auto_augment_image_net(images, shape=[SIZE, SIZE])
        elif augmenter == "randaugment":
            images = rand_augment.rand_augment(images, shape=[SIZE, SIZE], n=2, m=10)
        return images, read["image/class/label"] - 1

    made = pipeline(batch_size=BATCH, num_threads=CORES, device_id=None, prefetch_queue_depth=2)
    made.build()

    def batches() -> Iterable[Any]:
        while True:
            images, _ = made.run()
            yield (np.asarray(images.as_tensor()),)  # shares DALI's memory

    return _taking(batches(), {"dali": dali.__version__})
