"""Lists EfficientNets' published tables of stages, before scaling.

v1: Tan and Le, ICML 2019 (arXiv:1905.11946), table 1. V2: Tan and Le, ICML 2021 (arXiv:2104.00298),
table 4, has S; B0 to B3, M, L and XL are from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A row of EfficientNet's table, unscaled: `repeats` blocks; the first has the stride.

    Its input is the output of the previous stage or the stem.

    `fused` blocks (V2) have one full convolution in place of the expansion and the depthwise one,
    and no squeeze-and-excitation. `depthwise` is the end of the depthwise layer's name, as in
    keras.applications.
    """

    kernel: int
    repeats: int
    filters_out: int
    expand: int
    stride: int
    fused: bool = False
    depthwise: str = "dwconv"


EFFICIENTNET_STAGES = (
    Stage(kernel=3, repeats=1, filters_out=16, expand=1, stride=1),
    Stage(kernel=3, repeats=2, filters_out=24, expand=6, stride=2),
    Stage(kernel=5, repeats=2, filters_out=40, expand=6, stride=2),
    Stage(kernel=3, repeats=3, filters_out=80, expand=6, stride=2),
    Stage(kernel=5, repeats=3, filters_out=112, expand=6, stride=1),
    Stage(kernel=5, repeats=4, filters_out=192, expand=6, stride=2),
    Stage(kernel=3, repeats=1, filters_out=320, expand=6, stride=1),
)

EFFICIENTNET_V2S_STAGES = (
    Stage(kernel=3, repeats=2, filters_out=24, expand=1, stride=1, fused=True),
    Stage(kernel=3, repeats=4, filters_out=48, expand=4, stride=2, fused=True),
    Stage(kernel=3, repeats=4, filters_out=64, expand=4, stride=2, fused=True),
    Stage(3, repeats=6, filters_out=128, expand=4, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=9, filters_out=160, expand=6, stride=1, depthwise="dwconv2"),
    Stage(3, repeats=15, filters_out=256, expand=6, stride=2, depthwise="dwconv2"),
)

EFFICIENTNET_V2B_STAGES = (
    Stage(3, repeats=1, filters_out=16, expand=1, stride=1, fused=True),
    Stage(3, repeats=2, filters_out=32, expand=4, stride=2, fused=True),
    Stage(3, repeats=2, filters_out=48, expand=4, stride=2, fused=True),
    Stage(3, repeats=3, filters_out=96, expand=4, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=5, filters_out=112, expand=6, stride=1, depthwise="dwconv2"),
    Stage(3, repeats=8, filters_out=192, expand=6, stride=2, depthwise="dwconv2"),
)

EFFICIENTNET_V2M_STAGES = (
    Stage(3, repeats=3, filters_out=24, expand=1, stride=1, fused=True),
    Stage(3, repeats=5, filters_out=48, expand=4, stride=2, fused=True),
    Stage(3, repeats=5, filters_out=80, expand=4, stride=2, fused=True),
    Stage(3, repeats=7, filters_out=160, expand=4, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=14, filters_out=176, expand=6, stride=1, depthwise="dwconv2"),
    Stage(3, repeats=18, filters_out=304, expand=6, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=5, filters_out=512, expand=6, stride=1, depthwise="dwconv2"),
)

EFFICIENTNET_V2L_STAGES = (
    Stage(3, repeats=4, filters_out=32, expand=1, stride=1, fused=True),
    Stage(3, repeats=7, filters_out=64, expand=4, stride=2, fused=True),
    Stage(3, repeats=7, filters_out=96, expand=4, stride=2, fused=True),
    Stage(3, repeats=10, filters_out=192, expand=4, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=19, filters_out=224, expand=6, stride=1, depthwise="dwconv2"),
    Stage(3, repeats=25, filters_out=384, expand=6, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=7, filters_out=640, expand=6, stride=1, depthwise="dwconv2"),
)

EFFICIENTNET_V2XL_STAGES = (
    Stage(3, repeats=4, filters_out=32, expand=1, stride=1, fused=True),
    Stage(3, repeats=8, filters_out=64, expand=4, stride=2, fused=True),
    Stage(3, repeats=8, filters_out=96, expand=4, stride=2, fused=True),
    Stage(3, repeats=16, filters_out=192, expand=4, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=24, filters_out=256, expand=6, stride=1, depthwise="dwconv2"),
    Stage(3, repeats=32, filters_out=512, expand=6, stride=2, depthwise="dwconv2"),
    Stage(3, repeats=8, filters_out=640, expand=6, stride=1, depthwise="dwconv2"),
)

# All kinds of blocks in as few as possible, because tests trace this network hundreds of times:
# with and without expansion, skip and stride; 3x3 and 5x5.
TEST_STAGES = (
    Stage(kernel=3, repeats=1, filters_out=16, expand=1, stride=2),
    Stage(kernel=5, repeats=1, filters_out=16, expand=4, stride=1),
)
