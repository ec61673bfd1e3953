"""Imports packages that need help to import."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

OPERATORS = (
    *("nms", "qnms", "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward"),
    *("roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward", "qroi_align"),
    *("deform_conv2d", "_deform_conv2d_backward"),
)


def import_torch() -> ModuleType:
    """Imports PyTorch, and declares torchvision's detection operators.

    A torchvision built for another PyTorch (for example with CUDA) cannot load them, and then
    neither it nor timm can be imported. Classification, and transforms of Pillow's images, do not
    need them.

    Raises:
        ModuleNotFoundError: one of the two is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        try:
            import torchvision
        except ModuleNotFoundError:
            raise
        except (RuntimeError, ImportError):
            library = torch.library.Library("torchvision", "DEF")
            for name in OPERATORS:
                library.define(f"{name}(Tensor input) -> Tensor")
            torch._convoy_library = library  # lives as long as this Python object
            for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            import torchvision  # noqa: F401
    return torch
