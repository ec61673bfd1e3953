"""Makes the networks that inference.py runs, with the same weights for every program.

    python -m benchmarks.contenders.inference_models ARCH SIZE WHAT FOLDER

writes WHAT ("weights", one of `runtime.export.formats.FORMATS`, or "timm.onnx") into FOLDER.
`prepared` runs this command in a separate process, so that its memory does not count as the
contender's.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.pytorch import import_torch
from benchmarks.harness.machine import ROOT

CHECKED = 64  # number of images for comparing logits
TIMM_NAMES = {
    "efficientnet-b0": "tf_efficientnet_b0",
    "efficientnet-b4": "tf_efficientnet_b4",
    "efficientnet-lite0": "tf_efficientnet_lite0",
    "resnet50": "resnet50",
}
SOURCES = ("model/*.py", "runtime/export/*.py", "benchmarks/contenders/inference_models.py")


def prepared(arch: str, size: int, what: str) -> Path:
    """Returns the path of `what`. Makes it if it does not exist for the current source code."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for file in sorted(ROOT.glob(pattern)):
            digest.update(file.read_bytes())
    folder = ROOT / "build" / "bench" / "models" / f"{arch}-{size}-{digest.hexdigest()[:12]}"
    path = folder / ("check.npz" if what == "weights" else what)
    if not path.exists():
        if what != "weights":
            prepared(arch, size, "weights")
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.contenders.inference_models"]
        command += [arch, str(size), what, str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    return path


def check(arch: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `CHECKED` images uint8 `(n, size, size, 3)` and the Keras model's logits for them."""
    with np.load(prepared(arch, size, "weights")) as arrays:
        return arrays["images"], arrays["logits"]


def images(size: int, count: int) -> np.ndarray:
    """Returns uint8 `(count, size, size, 3)`: coarse patches of colour plus noise."""
    rng = np.random.default_rng(0)
    places = np.arange(size) * 5 // size
    patches = rng.integers(0, 256, (count, 5, 5, 3))[:, places][:, :, places]
    return np.clip(patches + rng.integers(-40, 41, patches.shape), 0, 255).astype(np.uint8)


def our_model(arch: str, size: int, folder: Path | None = None) -> Any:
    """Builds the network as `--mode train` does: new, or with the weights in the folder."""
    from convoy.runtime.builders.models import build_training_model
    from convoy.runtime.settings.config import Config

    model = build_training_model(Config(arch=arch, image_size=size), num_classes=1000)
    if folder:
        from safetensors.numpy import load_file

        from convoy.runtime.run_folder.arrays import assign

        assign(model.weights, load_file(folder / "weights.safetensors"), "weight")
    return model


def _write_weights(arch: str, size: int, folder: Path) -> None:
    """Writes random weights with which an error in any layer changes the logits.

    Batch norms have the statistics of the images, their scales and shifts differ by channel, and
    logits differ by image.
    """
    import keras
    import tensorflow as tf

    from convoy.model.weights.export import export_weights

    keras.utils.set_random_seed(0)
    model, rng = our_model(arch, size), np.random.default_rng(1)
    pixels = images(size, CHECKED)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
            layer.momentum = 0.0  # replaces the moving statistics by the batch's
    tf.function(model)(tf.constant(pixels[:16]), training=True)
    forward = tf.function(lambda x: model(x, training=False))
    logits = np.concatenate([forward(part).numpy() for part in np.split(pixels, CHECKED // 8)])
    head = model.layers[-1]
    head.kernel.assign(head.kernel * 3 / (logits - logits.mean(0)).std())
    head.bias.assign(rng.normal(0, 0.3, head.bias.shape))
    logits = np.concatenate([forward(part).numpy() for part in np.split(pixels, CHECKED // 8)])
    export_weights(model, arch, folder / "weights.safetensors")
    export_weights(model, arch, folder / "timm.safetensors", "timm")
    np.savez(folder / "check.npz", images=pixels, logits=logits)


def _write_export(arch: str, size: int, folder: Path, name: str) -> None:
    from convoy.dataloader.images.eval_crop import EvalCrop
    from convoy.runtime.export.sample_images import Sample
    from convoy.runtime.export.writers import WRITERS, Exportable

    names = [f"class {i}" for i in range(1000)]
    what = Exportable(our_model(arch, size, folder), names, EvalCrop(), 5, False, {})
    aside = folder / f".{name}.{os.getpid()}"
    WRITERS[name](what, aside, Sample(calibration=list(images(size, CHECKED))))
    os.replace(aside, folder / name)


def timm_model(arch: str, size: int) -> Any:
    """Returns timm's network with our weights, in evaluation mode.

    Like our exports, it takes uint8 NHWC images and returns logits and probabilities.
    """
    import_torch()
    import timm
    import torch
    from safetensors.torch import load_file

    from convoy.model.catalog import IMAGENET_MEAN, IMAGENET_STD

    model = timm.create_model(TIMM_NAMES[arch], num_classes=1000)
    folder = prepared(arch, size, "weights").parent
    model.load_state_dict(load_file(folder / "timm.safetensors"))

    class FromPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            logits = self.model((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
            return logits, torch.softmax(logits, -1)

    return FromPixels().eval()


def _write_timm_onnx(arch: str, size: int, folder: Path) -> None:
    torch = import_torch()
    program = torch.onnx.export(
        timm_model(arch, size),
        (torch.from_numpy(images(size, 2)),),
        input_names=["images"],
        output_names=["logits", "probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,  # the older exporter would compute timm's padding in each run
    )
    program.save(folder / "timm.onnx", external_data=False)


def main() -> None:
    arch, size, what, folder = *sys.argv[1:4], Path(sys.argv[4])
    writers = {"weights": _write_weights, "timm.onnx": _write_timm_onnx}
    if what in writers:
        writers[what](arch, int(size), folder)
    else:
        _write_export(arch, int(size), folder, what)


if __name__ == "__main__":
    main()
