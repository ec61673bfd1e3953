"""Lists the architectures as data. Imports no TensorFlow, so early errors are quick.

Numbers: EfficientNet v1 from Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional
Neural Networks", ICML 2019 (arXiv:1905.11946): B0 is its table 1, the coefficients of the others
are from the authors' code; L2 is from Xie et al., CVPR 2020 (arXiv:1911.04252). EfficientNetV2 from
Tan and Le, ICML 2021 (arXiv:2104.00298), table 4. EfficientNet-Lite has no paper: its numbers are
from the authors' code (models/official/efficientnet/lite in the repository tensorflow/tpu), its
parameters from that code's test. Stochastic depth from Huang et al., "Deep Networks with Stochastic
Depth", ECCV 2016 (arXiv:1603.09382). ResNet from He et al., CVPR 2016 (arXiv:1512.03385), with the
stride on the 3x3 convolution ("v1.5"); ResNeXt from Xie et al., CVPR 2017 (arXiv:1611.05431);
squeeze-and-excitation from Hu et al., CVPR 2018 (arXiv:1709.01507). ResNet-D from He et al., CVPR
2019 (arXiv:1812.01187), figure 2c, with three convolutions in the stem as in its section 4.2's
ResNet-C; ResNet-RS from Bello et al., NeurIPS 2021 (arXiv:2103.07579).
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from dataclasses import dataclass
from typing import Any

from convoy.model.efficientnet_stages import (
    EFFICIENTNET_STAGES,
    EFFICIENTNET_V2B_STAGES,
    EFFICIENTNET_V2L_STAGES,
    EFFICIENTNET_V2M_STAGES,
    EFFICIENTNET_V2S_STAGES,
    EFFICIENTNET_V2XL_STAGES,
    TEST_STAGES,
    Stage,
)

# Mean and standard deviation of ImageNet's RGB channels, for images in 0-255.
IMAGENET_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
IMAGENET_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)

Channels = tuple[float, float, float]

SQUEEZE_RATIO = 0.25  # units of squeeze-and-excitation as a fraction of the block's *input* filters
FILTER_DIVISOR = 8

HEADS = {"efficientnet": "predictions", "resnet": "fc"}  # names of the classifier layers
BLOCK = re.compile(r"(block\d+[a-z]+|layer\d+_\d+)_")  # start of the names of a block's layers


@dataclass(frozen=True)
class Block:
    """A scaled inverted-residual block; its stochastic depth is `drop_position` times the rate."""

    name: str
    kernel: int
    stride: int
    filters_in: int
    filters_out: int
    expand: int
    drop_position: float
    fused: bool
    depthwise: str
    squeeze: bool

    @property
    def filters_expanded(self) -> int:
        """Number of filters after the expansion."""
        return self.filters_in * self.expand

    @property
    def squeeze_units(self) -> int:
        """Returns the units of squeeze-and-excitation; 0 without it."""
        return max(1, int(SQUEEZE_RATIO * self.filters_in)) if self.squeeze else 0

    @property
    def has_skip(self) -> bool:
        """Whether the block adds its input to its output."""
        return self.stride == 1 and self.filters_in == self.filters_out


@dataclass(frozen=True)
class ResidualBlock:
    """A block of a ResNet: two 3x3 convolutions, or ("bottleneck") 1x1, 3x3 and 1x1 of `width`.

    `squeeze_units` is 0 without squeeze-and-excitation; `drop_position` is as in `Block`. A strided
    shortcut that `averages` takes means of 2x2 pixels before the projection (ResNet-D).
    """

    name: str
    bottleneck: bool
    stride: int
    filters_in: int
    width: int
    filters_out: int
    groups: int
    squeeze_units: int
    drop_position: float
    averages: bool = False

    @property
    def has_projection(self) -> bool:
        """Whether the shortcut has a convolution, because shapes differ."""
        return self.stride != 1 or self.filters_in != self.filters_out


@dataclass(frozen=True)
class Arch:
    """An architecture and its published settings.

    Attributes:
        name: the value for `--arch`, such as "efficientnet-b0".
        family: "efficientnet" or "resnet".
        width, depth: scaling coefficients of filters and of repeats.
        resolution: default image size in pixels (square).
        dropout: default rate before the classifier.
        params_1000: parameters with 1000 classes, moving statistics included, as Keras counts.
        trainable_1000: the same without moving statistics, as papers and PyTorch count.
        min_image_size: the smallest image, in pixels, that leaves one pixel of features.
        stochastic_depth: default rate of the (never reached) block after the last.
        bn_momentum, bn_epsilon: batch-norm defaults of the family, in Keras' sense of momentum.
        activation: default activation.
        mean, std: mean and deviation of the training images per channel, in 0-255.
        interpolation, crop_padding: resizing method, and crop padding in evaluation (pixels), if
            published; None uses the program's defaults.
        available: False for a known name that we do not build; `reason` says why.
        stages, stem_filters, top_filters: the unscaled table (efficientnet only).
        squeeze: unfused blocks have squeeze-and-excitation (efficientnet only).
        fixed_ends: do not scale the filters of the first and last convolution and the repeats of
            the first and last stage (efficientnet only).
        keeps_a_tenth: see `round_filters` (efficientnet only).
        repeats, bottleneck, groups, group_width: blocks per stage, their kind, and for their 3x3
            convolution the groups and each group's filters in the first stage (resnet only).
        squeeze_units, se_ratio: units of squeeze-and-excitation: a number for all blocks, or, if
            `se_ratio` is set, this fraction of the block's output filters; 0: none (resnet only).
        deep: ResNet-D: three 3x3 convolutions in place of the stem's 7x7, and shortcuts that
            average before the projection (resnet only).
        conv_pool: ResNet-RS: a strided 3x3 convolution in place of the max-pool (resnet only).
    """

    name: str
    family: str
    width: float
    depth: float
    resolution: int
    dropout: float
    params_1000: int
    trainable_1000: int
    min_image_size: int = 32
    stochastic_depth: float = 0.2
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    activation: str = "swish"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    interpolation: str | None = None
    crop_padding: int | None = None
    available: bool = True
    reason: str = ""
    stages: tuple[Stage, ...] = EFFICIENTNET_STAGES
    stem_filters: int = 32
    top_filters: int = 1280
    squeeze: bool = True
    fixed_ends: bool = False
    keeps_a_tenth: bool = True
    repeats: tuple[int, ...] = ()
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64
    squeeze_units: int = 0
    se_ratio: float | None = None
    deep: bool = False
    conv_pool: bool = False


def _efficientnet(
    name: str,
    width: float,
    depth: float,
    size: int,
    dropout: float,
    params: int,
    trainable: int,
    **table: Any,
) -> Arch:
    numbers = (size, dropout, params, trainable)
    return Arch(f"efficientnet{name}", "efficientnet", width, depth, *numbers, **table)


def _lite(
    name: str, width: float, depth: float, size: int, dropout: float, params: int, trainable: int
) -> Arch:
    table: dict[str, Any] = {"squeeze": False, "fixed_ends": True, "activation": "relu6"}
    # For quantisation: all channels equal, and close to the whole range of 8 bits.
    table |= {"mean": (127.0,) * 3, "std": (128.0,) * 3}
    table |= {"interpolation": "bicubic", "crop_padding": round(size / 7)}  # 7/8 of the image
    numbers = (size, dropout, params, trainable)
    return _efficientnet(f"-lite{name}", width, depth, *numbers, **table)


def _resnet(name: str, repeats: tuple[int, ...], params: tuple[int, int], **table: Any) -> Arch:
    table |= {"stochastic_depth": 0.0, "stages": (), "stem_filters": 64, "top_filters": 0}
    table |= {"bn_momentum": 0.9, "bn_epsilon": 1e-5}  # Keras' momentum 0.9 is PyTorch's 0.1
    table["activation"], size = "relu", table.pop("resolution", 224)
    return Arch(name, "resnet", 1.0, 1.0, size, 0.0, *params, repeats=repeats, **table)


_V2 = {"bn_momentum": 0.9, "keeps_a_tenth": False}
_V2B = _V2 | {"stages": EFFICIENTNET_V2B_STAGES}
_V2S = _V2 | {"stages": EFFICIENTNET_V2S_STAGES, "stem_filters": 24}
_V2M = _V2 | {"stages": EFFICIENTNET_V2M_STAGES, "stem_filters": 24}
_V2L = _V2 | {"stages": EFFICIENTNET_V2L_STAGES}
_V2XL = _V2 | {"stages": EFFICIENTNET_V2XL_STAGES}
_SMALL = {"stem_filters": 8, "top_filters": 48, "min_image_size": 8}
_32X4D = {"groups": 32, "group_width": 4}
_SE_32X4D = _32X4D | {"squeeze_units": 16}
_32X8D = _32X4D | {"group_width": 8}
_RS = {"deep": True, "conv_pool": True, "se_ratio": 0.25}
_UNDEFINED = {
    "available": False,
    "reason": "NVIDIA's document names it without a definition, weights or results",
}

_ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        _efficientnet("-b0", 1.0, 1.0, 224, 0.2, 5_330_564, 5_288_548),
        _efficientnet("-b1", 1.0, 1.1, 240, 0.2, 7_856_232, 7_794_184),
        _efficientnet("-b2", 1.1, 1.2, 260, 0.3, 9_177_562, 9_109_994),
        _efficientnet("-b3", 1.2, 1.4, 300, 0.3, 12_320_528, 12_233_232),
        _efficientnet("-b4", 1.4, 1.8, 380, 0.4, 19_466_816, 19_341_616),
        _efficientnet("-b5", 1.6, 2.2, 456, 0.4, 30_562_520, 30_389_784),
        _efficientnet("-b6", 1.8, 2.6, 528, 0.5, 43_265_136, 43_040_704),
        _efficientnet("-b7", 2.0, 3.1, 600, 0.5, 66_658_680, 66_347_960),
        _efficientnet("-b8", 2.2, 3.6, 672, 0.5, 87_793_174, 87_413_142),
        _efficientnet("-l2", 4.3, 5.3, 800, 0.5, 481_399_996, 480_309_308),
        # V2's sizes are for evaluation; training used smaller ones, for S up to 300 pixels.
        # NVIDIA's recipe for S has a batch-norm momentum of 0.99.
        _efficientnet("v2-b0", 1.0, 1.0, 224, 0.2, 7_200_312, 7_139_704, **_V2B),
        _efficientnet("v2-b1", 1.0, 1.1, 240, 0.2, 8_212_124, 8_141_052, **_V2B),
        _efficientnet("v2-b2", 1.1, 1.2, 260, 0.3, 10_178_374, 10_096_086, **_V2B),
        _efficientnet("v2-b3", 1.2, 1.4, 300, 0.3, 14_467_622, 14_358_406, **_V2B),
        _efficientnet("v2-s", 1.0, 1.0, 384, 0.2, 21_612_360, 21_458_488, **_V2S),
        _efficientnet("v2-m", 1.0, 1.0, 480, 0.3, 54_431_388, 54_139_356, **_V2M),
        _efficientnet("v2-l", 1.0, 1.0, 480, 0.4, 119_027_848, 118_515_272, **_V2L),
        _efficientnet("v2-xl", 1.0, 1.0, 512, 0.4, 208_896_832, 208_119_808, **_V2XL),
        _lite("0", 1.0, 1.0, 224, 0.2, 4_694_024, 4_652_008),
        _lite("1", 1.0, 1.1, 240, 0.2, 5_470_344, 5_416_680),
        _lite("2", 1.1, 1.2, 260, 0.3, 6_150_168, 6_092_072),
        _lite("3", 1.2, 1.4, 280, 0.3, 8_273_768, 8_197_096),
        _lite("4", 1.4, 1.8, 300, 0.3, 13_118_936, 13_006_568),
        _efficientnet("-test", 1.0, 1.0, 32, 0.1, 55_350, 54_902, stages=TEST_STAGES, **_SMALL),
        _resnet("resnet18", (2, 2, 2, 2), (11_699_112, 11_689_512), bottleneck=False),
        _resnet("resnet34", (3, 4, 6, 3), (21_814_696, 21_797_672), bottleneck=False),
        _resnet("resnet50", (3, 4, 6, 3), (25_610_152, 25_557_032)),
        _resnet("resnet101", (3, 4, 23, 3), (44_654_504, 44_549_160)),
        _resnet("resnet152", (3, 8, 36, 3), (60_344_232, 60_192_808)),
        _resnet("resnext50-32x4d", (3, 4, 6, 3), (25_097_128, 25_028_904), **_32X4D),
        _resnet("resnext101-32x4d", (3, 4, 23, 3), (44_315_560, 44_177_704), **_32X4D),
        _resnet("resnext101-32x8d", (3, 4, 23, 3), (88_994_216, 88_791_336), **_32X8D),
        # ResNeXt's groups belong to the bottleneck's 3x3: no paper has basic blocks with 32 groups.
        _resnet("resnext101-32x8d-basic", (3, 4, 23, 3), (0, 0), **_UNDEFINED),
        _resnet("se-resnext101-32x4d", (3, 4, 23, 3), (45_388_984, 45_251_128), **_SE_32X4D),
        _resnet("resnet18d", (2, 2, 2, 2), (11_718_472, 11_708_744), bottleneck=False, deep=True),
        _resnet("resnet26d", (2, 2, 2, 2), (16_045_384, 16_014_408), deep=True),
        _resnet("resnet34d", (3, 4, 6, 3), (21_834_056, 21_816_904), bottleneck=False, deep=True),
        _resnet("resnet50d", (3, 4, 6, 3), (25_629_512, 25_576_264), deep=True),
        _resnet("resnet101d", (3, 4, 23, 3), (44_673_864, 44_568_392), deep=True),
        _resnet("resnet152d", (3, 8, 36, 3), (60_363_592, 60_212_040), deep=True),
        _resnet("resnet200d", (3, 24, 36, 3), (64_869_192, 64_693_064), deep=True),
        # Training sizes; timm evaluates at 1.2 to 1.5 times these.
        _resnet("resnetrs50", (3, 4, 6, 3), (35_745_288, 35_691_912), resolution=160, **_RS),
        _resnet("resnetrs101", (3, 4, 23, 3), (63_724_296, 63_618_696), resolution=192, **_RS),
        _resnet("resnetrs152", (3, 8, 36, 3), (86_773_256, 86_621_576), resolution=256, **_RS),
        _resnet("resnetrs200", (3, 24, 36, 3), (93_386_248, 93_209_992), resolution=256, **_RS),
        _resnet("resnetrs270", (4, 29, 53, 4), (130_104_520, 129_861_448), resolution=256, **_RS),
        _resnet("resnetrs350", (4, 36, 72, 4), (164_268_360, 163_956_168), resolution=288, **_RS),
        _resnet("resnetrs420", (4, 44, 87, 4), (192_262_216, 191_891_656), resolution=320, **_RS),
    )
}


def get_arch(name: str) -> Arch:
    """Returns the architecture called `name`; ValueError names the nearest ones."""
    if name in _ARCHS:
        return _ARCHS[name]
    near = difflib.get_close_matches(str(name).lower().replace("_", "-"), _ARCHS, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(_ARCHS)}."
    raise ValueError(f"Unknown architecture {name!r}. {hint}")


def list_archs(pattern: str | None = None) -> list[str]:
    """Lists names in the catalogue's order.

    Args:
        pattern: shell wildcards ("*-b?"), or a part of the name. None lists everything, including
            reserved names (`available=False`).
    """
    if pattern is None:
        return list(_ARCHS)
    if not any(mark in pattern for mark in "*?["):
        pattern = f"*{pattern}*"
    return [name for name in _ARCHS if fnmatch.fnmatchcase(name, pattern)]


def check_available(arch: Arch) -> None:
    """Raises ValueError with the reason if `arch` is in the catalogue but cannot be built."""
    if not arch.available:
        raise ValueError(f"{arch.name} cannot be built: {arch.reason}.")


def check_image_size(arch: Arch, size: int) -> None:
    """Raises ValueError if `arch` does not accept square images of `size` pixels."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"The image size must be a whole number of pixels, not {size!r}.")
    if size < arch.min_image_size:
        least = f"{arch.name} needs images of at least {arch.min_image_size} pixels, not {size}"
        raise ValueError(f"{least}: its strides would leave less than one pixel of features.")


def round_filters(
    filters: int, width: float, divisor: int = FILTER_DIVISOR, *, keeps_a_tenth: bool = True
) -> int:
    """Scales `filters` by `width` to the nearest multiple of `divisor`.

    If that would lose more than 10 % and `keeps_a_tenth` is set, to the next multiple.
    """
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if keeps_a_tenth and rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scales a stage's number of blocks, rounding up."""
    return math.ceil(depth * repeats)


def stem_filters(arch: Arch) -> int:
    """Returns the scaled filters of the first convolution."""
    return arch.stem_filters if arch.fixed_ends else _scaled(arch.stem_filters, arch)


def top_filters(arch: Arch) -> int:
    """Returns the scaled filters of the last convolution: the classifier's features."""
    return arch.top_filters if arch.fixed_ends else _scaled(arch.top_filters, arch)


def _scaled(filters: int, arch: Arch) -> int:
    return round_filters(filters, arch.width, keeps_a_tenth=arch.keeps_a_tenth)


def _letters(number: int) -> str:
    """Returns a to z for 0 to 25, then aa, ab and so on."""
    first = chr(ord("a") + number // 26 - 1) if number >= 26 else ""
    return first + chr(ord("a") + number % 26)


def efficientnet_blocks(arch: Arch) -> list[Block]:
    """Returns an EfficientNet's scaled blocks, named as in keras.applications (block2a)."""
    repeats = [round_repeats(stage.repeats, arch.depth) for stage in arch.stages]
    if arch.fixed_ends:
        repeats[0], repeats[-1] = arch.stages[0].repeats, arch.stages[-1].repeats
    total = sum(repeats)
    blocks: list[Block] = []
    filters_out = stem_filters(arch)
    for number, stage in enumerate(arch.stages, start=1):
        filters_in, filters_out = filters_out, _scaled(stage.filters_out, arch)
        for repeat in range(repeats[number - 1]):
            block = Block(
                name=f"block{number}{_letters(repeat)}",
                kernel=stage.kernel,
                stride=stage.stride if repeat == 0 else 1,
                filters_in=filters_in if repeat == 0 else filters_out,
                filters_out=filters_out,
                expand=stage.expand,
                drop_position=len(blocks) / total,
                fused=stage.fused,
                depthwise=stage.depthwise,
                squeeze=arch.squeeze and not stage.fused,
            )
            blocks.append(block)
    return blocks


def resnet_blocks(arch: Arch) -> list[ResidualBlock]:
    """Returns a ResNet's blocks, named as in torchvision except for the dot (layer1_0)."""
    total = sum(arch.repeats)
    blocks: list[ResidualBlock] = []
    filters_in = arch.stem_filters
    for number, repeats in enumerate(arch.repeats):
        planes = arch.stem_filters * 2**number
        filters_out = 4 * planes if arch.bottleneck else planes
        width = planes * arch.group_width // 64 * arch.groups
        units = max(1, int(arch.se_ratio * filters_out)) if arch.se_ratio else arch.squeeze_units
        for repeat in range(repeats):
            name, stride = f"layer{number + 1}_{repeat}", 2 if number > 0 and repeat == 0 else 1
            shape = (stride, filters_in, width, filters_out, arch.groups, units)
            place = len(blocks) / total
            blocks.append(ResidualBlock(name, arch.bottleneck, *shape, place, arch.deep))
            filters_in = filters_out
    return blocks
