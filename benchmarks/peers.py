"""How packages are imported that do not always import by themselves."""

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
    """PyTorch, with torchvision's detection operators declared.

    A torchvision built for another PyTorch (one with CUDA, say) cannot load them, and then neither
    it nor timm imports at all. Classification, and transforms of Pillow's images, need none.

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
            torch._convoy_library = library  # it ends with its Python object
            for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            import torchvision  # noqa: F401
    return torch
