"""Exports a model before it labels many images, because ONNX Runtime then saves more time.

The file lies in a temporary folder: `--mode export` is for files to keep.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from convoy.model.weights import onnx_file
from convoy.runtime.export.formats import FORMATS
from convoy.runtime.predict.choice import Choice, needs_tensorflow
from convoy.runtime.settings.config import Config
from convoy.utils.errors import UserError
from convoy.utils.machine import device

PAYS_FROM = 10_000
"""Images from which on an export saves time in all (docs/predict.md)."""


def exported_if_it_pays(config: Config, choice: Choice, count: int, stack: ExitStack) -> Choice:
    """Returns the choice, or instead of TensorFlow an export that was made for these images.

    Args:
        config: the flags.
        choice: from `choose`.
        count: number of images to label.
        stack: keeps the file until it is closed.
    """
    if choice.file or not choice.lacks_export or count < PAYS_FROM or not _possible(config):
        return choice
    from convoy.runtime.builders.precision import precision

    if device.multiplies_bfloat16() and precision(config).policy == "mixed_bfloat16":
        # 0.9 to 1.1 (EfficientNet-B0) and 1.6 times (ResNet50) as fast, without the export
        return choice._replace(why_not="in bfloat16 an export would hardly save time here")
    print(
        f"{count} images: exporting the model first, for ONNX Runtime, which is faster from about"
        f" {PAYS_FROM} images on (--engine tensorflow does without)",
        flush=True,
    )
    from convoy.runtime.export.export import export

    folder = stack.enter_context(TemporaryDirectory(prefix="convoy-"))
    asked = config.with_(
        export_format="onnx", output=folder, label_file=None, export_backbone=False
    )
    try:
        export(asked)
    except UserError as error:
        return choice._replace(why_not=str(error))
    file = Path(folder) / onnx_file.NAME
    return Choice(file, onnx_file.facts(file).get("classes_in_data") or [])


def _possible(config: Config) -> bool:
    packages = FORMATS["onnx"].packages
    listed = config.predict_dir == "-"  # standard input, which can be read only once
    return all(find_spec(name) for name in packages) and not listed and not needs_tensorflow(config)
