"""Imports PyTorch and a torchvision that may have been built for another PyTorch."""

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
    """Imports PyTorch, and declares torchvision's detection operators if necessary.

    A torchvision built for another PyTorch (for example one with CUDA) cannot load these operators,
    and then importing torchvision or timm fails. Neither classification nor transforms of Pillow
    images use them.

    Raises:
        ModuleNotFoundError: PyTorch or torchvision is not installed.
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
            torch._convoy_library = library  # the declarations live as long as this object
            for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            import torchvision  # noqa: F401
    return torch
