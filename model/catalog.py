"""The architectures Convoy knows, as data. Imports no TensorFlow, so early errors are quick.

Numbers: EfficientNet v1 from Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional
Neural Networks", ICML 2019 (arXiv:1905.11946): B0 is its table 1, the coefficients of B1 to B7 are
those of the authors' code (and keras.applications). Stochastic depth from Huang et al., "Deep
Networks with Stochastic Depth", ECCV 2016 (arXiv:1603.09382). ResNet from He et al., CVPR 2016
(arXiv:1512.03385), with the stride on the 3x3 convolution ("v1.5"); ResNeXt from Xie et al., CVPR
2017 (arXiv:1611.05431); squeeze-and-excitation from Hu et al., CVPR 2018 (arXiv:1709.01507).
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from dataclasses import dataclass

# Mean and standard deviation of ImageNet's RGB channels, for images in 0-255.
IMAGENET_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
IMAGENET_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)

SQUEEZE_RATIO = 0.25  # units of squeeze-and-excitation, as a part of the block's *input* filters
FILTER_DIVISOR = 8


@dataclass(frozen=True)
class Stage:
    """A row of EfficientNet's table, unscaled: `repeats` blocks, the first of which strides."""

    kernel: int
    repeats: int
    filters_in: int
    filters_out: int
    expand: int
    stride: int


@dataclass(frozen=True)
class Block:
    """A scaled inverted-residual block; `drop_position` times the rate is its stochastic depth."""

    name: str
    kernel: int
    stride: int
    filters_in: int
    filters_out: int
    expand: int
    drop_position: float

    @property
    def filters_expanded(self) -> int:
        return self.filters_in * self.expand

    @property
    def squeeze_units(self) -> int:
        return max(1, int(SQUEEZE_RATIO * self.filters_in))

    @property
    def has_skip(self) -> bool:
        return self.stride == 1 and self.filters_in == self.filters_out


EFFICIENTNET_STAGES = (
    Stage(kernel=3, repeats=1, filters_in=32, filters_out=16, expand=1, stride=1),
    Stage(kernel=3, repeats=2, filters_in=16, filters_out=24, expand=6, stride=2),
    Stage(kernel=5, repeats=2, filters_in=24, filters_out=40, expand=6, stride=2),
    Stage(kernel=3, repeats=3, filters_in=40, filters_out=80, expand=6, stride=2),
    Stage(kernel=5, repeats=3, filters_in=80, filters_out=112, expand=6, stride=1),
    Stage(kernel=5, repeats=4, filters_in=112, filters_out=192, expand=6, stride=2),
    Stage(kernel=3, repeats=1, filters_in=192, filters_out=320, expand=6, stride=1),
)

# Every kind of block in the least space: with and without expansion, skip and stride; 3x3 and 5x5.
EFFICIENTNET_TEST_STAGES = (
    Stage(kernel=3, repeats=1, filters_in=8, filters_out=8, expand=1, stride=1),
    Stage(kernel=3, repeats=2, filters_in=8, filters_out=16, expand=4, stride=2),
    Stage(kernel=5, repeats=1, filters_in=16, filters_out=24, expand=4, stride=2),
)


@dataclass(frozen=True)
class Arch:
    """An architecture and the settings it was published with.

    Attributes:
        name: What `--arch` takes, such as "efficientnet-b0".
        family: "efficientnet" or "resnet".
        width, depth: Scaling coefficients of filters and of repeats.
        resolution: Default image size in pixels (square).
        dropout: Default rate before the classifier.
        params_1000: Parameters with 1000 classes, moving statistics included.
        min_image_size: The smallest image, in pixels, that leaves one pixel of features.
        stochastic_depth: Default rate of the (never reached) block after the last.
        bn_momentum, bn_epsilon: Batch-norm defaults of the family, in Keras' sense of momentum.
        available: False for a name that is reserved for a model still to come.
        stages, stem_filters, top_filters: The unscaled table (efficientnet only).
    """

    name: str
    family: str
    width: float
    depth: float
    resolution: int
    dropout: float
    params_1000: int
    min_image_size: int = 32
    stochastic_depth: float = 0.2
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    available: bool = True
    stages: tuple[Stage, ...] = EFFICIENTNET_STAGES
    stem_filters: int = 32
    top_filters: int = 1280


def _efficientnet(
    name: str, width: float, depth: float, resolution: int, dropout: float, params: int
) -> Arch:
    return Arch(f"efficientnet-{name}", "efficientnet", width, depth, resolution, dropout, params)


def _resnet(name: str, params: int) -> Arch:
    # Keras' momentum 0.9 is PyTorch's 0.1.
    return Arch(
        name=name,
        family="resnet",
        width=1.0,
        depth=1.0,
        resolution=224,
        dropout=0.0,
        params_1000=params,
        stochastic_depth=0.0,
        bn_momentum=0.9,
        bn_epsilon=1e-5,
        available=False,
        stages=(),
        stem_filters=64,
        top_filters=0,
    )


_ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        _efficientnet("b0", 1.0, 1.0, 224, 0.2, 5_330_564),
        _efficientnet("b1", 1.0, 1.1, 240, 0.2, 7_856_232),
        _efficientnet("b2", 1.1, 1.2, 260, 0.3, 9_177_562),
        _efficientnet("b3", 1.2, 1.4, 300, 0.3, 12_320_528),
        _efficientnet("b4", 1.4, 1.8, 380, 0.4, 19_466_816),
        _efficientnet("b5", 1.6, 2.2, 456, 0.4, 30_562_520),
        _efficientnet("b6", 1.8, 2.6, 528, 0.5, 43_265_136),
        _efficientnet("b7", 2.0, 3.1, 600, 0.5, 66_658_680),
        Arch(
            name="efficientnet-test",
            family="efficientnet",
            width=1.0,
            depth=1.0,
            resolution=32,
            dropout=0.1,
            params_1000=61_500,
            min_image_size=8,
            stages=EFFICIENTNET_TEST_STAGES,
            stem_filters=8,
            top_filters=48,
        ),
        _resnet("resnet18", 11_689_512),
        _resnet("resnet34", 21_797_672),
        _resnet("resnet50", 25_557_032),
        _resnet("resnet101", 44_549_160),
        _resnet("resnet152", 60_192_808),
        _resnet("resnext50-32x4d", 25_028_904),
        _resnet("resnext101-32x4d", 44_177_704),
        _resnet("resnext101-32x8d", 88_791_336),
        _resnet("se-resnext101-32x4d", 45_251_128),
    )
}


def get_arch(name: str) -> Arch:
    """Returns the architecture called `name`; ValueError names the nearest ones otherwise."""
    if name in _ARCHS:
        return _ARCHS[name]
    near = difflib.get_close_matches(str(name).lower().replace("_", "-"), _ARCHS, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(_ARCHS)}."
    raise ValueError(f"Unknown architecture {name!r}. {hint}")


def list_archs(pattern: str | None = None) -> list[str]:
    """Names in the catalogue's order.

    Args:
        pattern: Shell wildcards ("*-b?"); without any, a part of the name. None lists everything,
            reserved names (`available=False`) included.
    """
    if pattern is None:
        return list(_ARCHS)
    if not any(mark in pattern for mark in "*?["):
        pattern = f"*{pattern}*"
    return [name for name in _ARCHS if fnmatch.fnmatchcase(name, pattern)]


def check_available(arch: Arch) -> None:
    """Raises ValueError if the catalogue names `arch` but nothing builds it yet."""
    if not arch.available:
        ready = ", ".join(a.name for a in _ARCHS.values() if a.available)
        raise ValueError(f"{arch.name} is planned but cannot be built yet. Available: {ready}.")


def check_image_size(arch: Arch, size: int) -> None:
    """Raises ValueError if `arch` cannot take square images of `size` pixels."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"The image size must be a whole number of pixels, not {size!r}.")
    if size < arch.min_image_size:
        raise ValueError(
            f"{arch.name} needs images of at least {arch.min_image_size} pixels, not {size}: "
            f"its strides would leave less than one pixel of features."
        )


def round_filters(filters: int, width: float, divisor: int = FILTER_DIVISOR) -> int:
    """Scales `filters` by `width` to the nearest multiple of `divisor`, losing at most 10 %."""
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scales a stage's number of blocks, rounding up."""
    return math.ceil(depth * repeats)


def stem_filters(arch: Arch) -> int:
    """Scaled filters of the first convolution."""
    return round_filters(arch.stem_filters, arch.width)


def top_filters(arch: Arch) -> int:
    """Scaled filters of the last convolution, which are the features of the classifier."""
    return round_filters(arch.top_filters, arch.width)


def efficientnet_blocks(arch: Arch) -> list[Block]:
    """The scaled blocks of an EfficientNet, in order, named as in keras.applications (block2a)."""
    total = sum(round_repeats(stage.repeats, arch.depth) for stage in arch.stages)
    blocks: list[Block] = []
    for number, stage in enumerate(arch.stages, start=1):
        filters_out = round_filters(stage.filters_out, arch.width)
        for repeat in range(round_repeats(stage.repeats, arch.depth)):
            first = repeat == 0
            blocks.append(
                Block(
                    name=f"block{number}{chr(ord('a') + repeat)}",
                    kernel=stage.kernel,
                    stride=stage.stride if first else 1,
                    filters_in=(
                        round_filters(stage.filters_in, arch.width) if first else filters_out
                    ),
                    filters_out=filters_out,
                    expand=stage.expand,
                    drop_position=len(blocks) / total,
                )
            )
    return blocks


def parameter_count(arch: Arch, num_classes: int = 1000) -> int:
    """Parameters, moving statistics included, by arithmetic.

    ValueError if `arch` is not available yet: it has no table.
    """
    check_available(arch)
    batch_norm = 4  # gamma, beta, moving mean, moving variance
    stem, top = stem_filters(arch), top_filters(arch)
    blocks = efficientnet_blocks(arch)
    count = stem * (3 * 3 * 3 + batch_norm)
    for block in blocks:
        wide, squeezed = block.filters_expanded, block.squeeze_units
        if block.expand != 1:
            count += wide * (block.filters_in + batch_norm)
        count += wide * (block.kernel**2 + batch_norm)
        count += squeezed * (wide + 1) + wide * (squeezed + 1)
        count += block.filters_out * (wide + batch_norm)
    count += top * (blocks[-1].filters_out + batch_norm)
    return count + num_classes * (top + 1)


def flop_count(arch: Arch, image_size: int | None = None, num_classes: int = 1000) -> int:
    """Multiply-adds for one image by arithmetic, each counted once as papers do.

    Convolutions and the classifier only. `image_size` in pixels, by default the arch's resolution.
    """
    check_available(arch)
    size = math.ceil((image_size or arch.resolution) / 2)
    stem, top = stem_filters(arch), top_filters(arch)
    blocks = efficientnet_blocks(arch)
    count = size**2 * stem * 3 * 3 * 3
    for block in blocks:
        wide = block.filters_expanded
        if block.expand != 1:
            count += size**2 * block.filters_in * wide
        size = math.ceil(size / block.stride)
        count += size**2 * wide * (block.kernel**2 + block.filters_out)
        count += 2 * wide * block.squeeze_units
    return count + size**2 * blocks[-1].filters_out * top + top * num_classes
