"""Measures how much more memory each decoder needs for a thin image than for an ordinary one.

    python -m benchmarks.costs.thin_images            prints a table
    python -m benchmarks.costs.thin_images --json     prints JSON

Linux only, because it resets the process's peak memory between images.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

from convoy.dataloader.images.crops import eval_decode, random_crop_decode
from convoy.dataloader.images.decoders import tensorflow_only
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.prepare.images import Recoding, recode
from convoy.utils import strict_json

SIZE = 224
ORDINARY = (500, 375)
SHAPES = ((500, 1), (2000, 1), (6000, 1), (20_000, 20), (1, 6000), (1, 500_000))
QUICK = ((6000, 1), (20_000, 20))

Use = Callable[[bytes], object]


def picture(width: int, height: int) -> bytes:
    """Returns a PNG of noise."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def peak_mb(use: Use, image: bytes) -> float:
    """Returns this process's peak memory in MB while it decodes an image."""
    Path("/proc/self/clear_refs").write_text("5")
    use(image)
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1e3


def traced(function: Callable[[tf.Tensor], tf.Tensor]) -> Use:
    """Returns the function, traced as in a tf.data pipeline."""
    compiled = tf.function(function, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda image: compiled(tf.constant(image)).numpy()


def uses(quick: bool) -> Iterator[tuple[str, Use]]:
    """Yields the names of decoders, and functions that decode an encoded image."""
    for method in ("crop", "resize"):
        for name in ("bilinear", "bicubic"):
            crop = EvalCrop(method=method, interpolation=name)
            yield f"evaluation, {method}, {name}", traced(partial(_evaluated, crop=crop))
    anti = EvalCrop(method="resize", antialias=True)
    yield "evaluation, resize, antialias", traced(partial(_evaluated, crop=anti))
    for name in ("bilinear", "bicubic"):
        yield f"training, {name}", traced(partial(_crop, interpolation=name))
    yield from _predict()
    yield "prepare --resize_short 256", lambda image: recode(image, Recoding(256, 90))
    if not quick:
        yield from _exported()
        yield from _dali()


def _evaluated(encoded: tf.Tensor, crop: EvalCrop) -> tf.Tensor:
    return eval_decode(encoded, SIZE, crop)


def _crop(encoded: tf.Tensor, interpolation: str) -> tf.Tensor:
    return random_crop_decode(encoded, tf.constant([1, 2]), SIZE, interpolation=interpolation)


def _predict() -> Iterator[tuple[str, Use]]:
    from convoy.dataloader.plain.square import eval_square
    from convoy.runtime.predict.tensorflow_engine import decoder

    crop = EvalCrop(method="resize", interpolation="bicubic")
    yield "predict", decoder(SIZE, crop)
    yield "predict --image", decoder(SIZE, crop, traced=False)
    yield "predict --engine onnx", lambda image: eval_square(image, SIZE, crop)


def _exported() -> Iterator[tuple[str, Use]]:
    """Yields a SavedModel's signature for encoded images, without a network."""
    from convoy.dataloader import native

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def serve(self, image_bytes: tf.Tensor) -> tf.Tensor:
            spec = tf.TensorSpec([SIZE, SIZE, 3], tf.uint8)
            crop = EvalCrop(method="resize", interpolation="bicubic")
            decode = partial(_evaluated, crop=crop)
            return tf.map_fn(decode, image_bytes, fn_output_signature=spec)

    with tempfile.TemporaryDirectory() as folder:
        with native.disabled(), tensorflow_only():
            tf.saved_model.save(Module(), folder)
        loaded = tf.saved_model.load(folder)
        yield "SavedModel, image_bytes", lambda image: loaded.serve(tf.constant([image])).numpy()


def _dali() -> Iterator[tuple[str, Use]]:
    try:
        from convoy.dataloader.dali import DaliLoader
    except ImportError:
        return
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources.folders import FolderSource

    def use(image: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("ant", "bee"):
                (Path(folder) / "val" / name).mkdir(parents=True)
                (Path(folder) / "val" / name / "1.png").write_bytes(image)
            options = InputOptions(image_size=SIZE, batch_size=1, num_workers=1, eval_crop=crop)
            loader = DaliLoader(FolderSource(folder, "validation"), options, training=False)
            return [batch[0].numpy() for batch in loader.batches(0)]

    for name in ("bilinear", "bicubic"):
        crop = EvalCrop(method="resize", interpolation=name)
        yield f"DALI, resize, {name}", use


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, without export and DALI")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, use in uses(options.quick):
        ordinary = picture(*ORDINARY)
        use(ordinary)  # traces the function, and allocates memory that stays
        base = peak_mb(use, ordinary)
        for shape in QUICK if options.quick else SHAPES:
            more = peak_mb(use, picture(*shape)) - base
            rows.append({"use": name, "width": shape[0], "height": shape[1], "more_mb": more})
            if not options.json:
                print(f"{name:<32}{shape[0]:>8} x {shape[1]:<8}{more:>8.0f} MB more", flush=True)
    if options.json:
        print(strict_json.dumps(rows))


if __name__ == "__main__":
    main()
