"""Shows what libraries make of the same input: the tables of docs/agreement.md.

python -m benchmarks.agreement            print the tables
python -m benchmarks.agreement --write    put them into the page

It asks the libraries that are installed; docs/agreement.md says how to install all of them. It
takes two minutes of a core, and needs no network and no GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import textwrap
import time
from collections.abc import Callable

from benchmarks.agreement.case import Case, table
from benchmarks.harness.machine import ROOT
from benchmarks.harness.pages import write

PAGE = ROOT / "docs" / "agreement.md"
# Short name: module, and the packages whose version is shown.
PROGRAMS = {
    "tensorflow": ("tensorflow", ("tensorflow-cpu", "tensorflow")),
    "keras": ("keras", ("keras",)),
    "pillow": ("PIL", ("pillow",)),
    "numpy": ("numpy", ("numpy",)),
    "opencv": ("cv2", ("opencv-python-headless", "opencv-python")),
    "dali": ("nvidia.dali", ("nvidia-dali-cuda120",)),
    "torch": ("torch", ("torch",)),
    "torchvision": ("torchvision", ("torchvision",)),
    "timm": ("timm", ("timm",)),
    "transformers": ("transformers", ("transformers",)),
    "litert": ("ai_edge_litert", ("ai-edge-litert",)),
    "onnx": ("onnxruntime", ("onnxruntime",)),
    "tf2onnx": ("tf2onnx", ("tf2onnx",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args()
    installed = prepare()
    parts = {"versions": versions(installed)}
    for name, cases in sections().items():
        parts[name] = table(cases(installed))
    for name, text in parts.items():
        if options.write:
            write(name, text, PAGE)
        else:
            print(f"{name}\n\n{text}")


def prepare() -> dict[str, bool]:
    """Imports PyTorch before TensorFlow, and returns which programs are installed.

    In the other order some builds of the two crash each other.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    installed = {name: _found(module) for name, (module, _) in PROGRAMS.items()}
    if installed["torch"]:
        from benchmarks.contenders.pytorch import import_torch

        torch = import_torch()
        # Its own operations are missing where it was built for another PyTorch.
        installed["torchvision"] &= hasattr(torch.ops.image, "decode_image")
    installed["onnx"] &= installed["tf2onnx"]
    return installed


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def versions(installed: dict[str, bool]) -> str:
    """Returns a line with the versions and the date."""
    found = []
    for _, packages in PROGRAMS.values():
        for package in packages:
            try:
                found.append(f"{package} {importlib.metadata.version(package)}")
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    text = f"*{', '.join(found)}; {time.strftime('%d %B %Y').lstrip('0')}.*"
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def sections() -> dict[str, Callable[[dict[str, bool]], list[Case]]]:
    """Returns the functions that make each section's cases, by the name of its place."""
    from benchmarks.agreement import colours, exports, pictures, sizes, training

    return {
        "pictures": pictures.cases,
        "sizes": sizes.cases,
        "colours": colours.cases,
        "training": training.cases,
        "exports": exports.cases,
    }


if __name__ == "__main__":
    main()
