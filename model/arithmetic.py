"""Computes an architecture's weights by arithmetic: their names, shapes and costs.

It needs no TensorFlow, so a weight file can be compared with an architecture before a model is
built, and `--mode list` counts without building models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from convoy.model.catalog import (
    BLOCK,
    HEADS,
    Arch,
    check_available,
    efficientnet_blocks,
    resnet_blocks,
    stem_filters,
    top_filters,
)

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class _Layer:
    """A convolution or classifier with its batch norm, or otherwise its bias."""

    name: str
    kernel: tuple[int, ...]  # in Keras' layout; each number is a multiply-add for every pixel
    pixels: int  # of the output
    norm: str = ""
    depthwise: bool = False

    @property
    def filters(self) -> int:
        return self.kernel[-2 if self.depthwise else -1]

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{self.name}/kernel", self.kernel
        if self.norm:
            yield from ((f"{self.norm}/{part}", (self.filters,)) for part in _NORM)
        else:
            yield f"{self.name}/bias", (self.filters,)


def _efficientnet(arch: Arch, size: int) -> Iterator[_Layer]:
    size, filters = math.ceil(size / 2), stem_filters(arch)
    yield _Layer("stem_conv", (3, 3, 3, filters), size**2, "stem_bn")
    for block in efficientnet_blocks(arch):
        name, wide, filters = block.name, block.filters_expanded, block.filters_out
        window, units = (block.kernel, block.kernel), block.squeeze_units
        before, size = size, math.ceil(size / block.stride)
        project, project_bn = f"{name}_project_conv", f"{name}_project_bn"
        expand, expand_bn = f"{name}_expand_conv", f"{name}_expand_bn"
        if block.fused:
            if block.expand == 1:
                yield _Layer(project, (*window, block.filters_in, filters), size**2, project_bn)
                continue
            yield _Layer(expand, (*window, block.filters_in, wide), size**2, expand_bn)
        else:
            if block.expand != 1:
                yield _Layer(expand, (1, 1, block.filters_in, wide), before**2, expand_bn)
            depthwise = f"{name}_{block.depthwise}"
            yield _Layer(depthwise, (*window, wide, 1), size**2, f"{name}_bn", depthwise=True)
            if units:
                yield _Layer(f"{name}_se_reduce", (1, 1, wide, units), 1)
                yield _Layer(f"{name}_se_expand", (1, 1, units, wide), 1)
        yield _Layer(project, (1, 1, wide, filters), size**2, project_bn)
    yield _Layer("top_conv", (1, 1, filters, top_filters(arch)), size**2, "top_bn")


def _resnet(arch: Arch, size: int) -> Iterator[_Layer]:
    size = math.ceil(size / 2)
    wide, half = arch.stem_filters, arch.stem_filters // 2
    if arch.deep:
        yield _Layer("conv1_0", (3, 3, 3, half), size**2, "conv1_1")
        yield _Layer("conv1_3", (3, 3, half, half), size**2, "conv1_4")
        yield _Layer("conv1_6", (3, 3, half, wide), size**2, "bn1")
    else:
        yield _Layer("conv1", (7, 7, 3, wide), size**2, "bn1")
    size = math.ceil(size / 2)  # the max-pool
    if arch.conv_pool:
        yield _Layer("maxpool_0", (3, 3, wide, wide), size**2, "maxpool_1")
    for block in resnet_blocks(arch):
        name, wide, filters = block.name, block.width, block.filters_out
        before, size = size, math.ceil(size / block.stride)
        if block.bottleneck:
            kernels = [
                ((1, 1, block.filters_in, wide), before),
                ((3, 3, wide // block.groups, wide), size),
                ((1, 1, wide, filters), size),
            ]
        else:
            kernels = [((3, 3, block.filters_in, wide), size), ((3, 3, wide, filters), size)]
        for number, (kernel, side) in enumerate(kernels, start=1):
            yield _Layer(f"{name}_conv{number}", kernel, side**2, f"{name}_bn{number}")
        if units := block.squeeze_units:
            yield _Layer(f"{name}_se_reduce", (1, 1, filters, units), 1)
            yield _Layer(f"{name}_se_expand", (1, 1, units, filters), 1)
        if block.has_projection:
            kernel = (1, 1, block.filters_in, filters)
            yield _Layer(f"{name}_downsample_conv", kernel, size**2, f"{name}_downsample_bn")


def _layers(arch: Arch, size: int, num_classes: int) -> list[_Layer]:
    check_available(arch)
    walk = _resnet if arch.family == "resnet" else _efficientnet
    layers = list(walk(arch, size))
    norms = [layer for layer in layers if layer.norm and "downsample" not in layer.name]
    head = _Layer(HEADS[arch.family], (norms[-1].filters, num_classes), 1)
    return [*layers, head]


def weight_shapes(
    arch: Arch, num_classes: int = 1000, se_ratio: float | None = None
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each variable by its path. ValueError if `arch` is not available.

    Args:
        arch: an entry of `model.catalog`.
        num_classes: number of logits.
        se_ratio: as in `build_model`.
    """
    if se_ratio is not None and (arch.squeeze_units or arch.se_ratio):
        arch = dataclasses.replace(arch, se_ratio=se_ratio)
    layers = _layers(arch, arch.resolution, num_classes)
    return dict(shape for layer in layers for shape in layer.shapes())


def macs(arch: Arch, image_size: int | None = None, num_classes: int = 1000) -> int:
    """Counts the multiply-adds for one image, which papers call FLOPs.

    Convolutions and classifier count, each multiply-add once.

    Args:
        arch: an entry of `model.catalog`.
        image_size: height and width in pixels; None: the arch's.
        num_classes: number of logits.

    Raises:
        ValueError: `arch` is not available.
    """
    layers = _layers(arch, image_size or arch.resolution, num_classes)
    return sum(math.prod(layer.kernel) * layer.pixels for layer in layers)


def maps_by_block(arch: Arch, image_size: int | None = None) -> dict[str, int]:
    """Counts the numbers in the outputs of each block's convolutions for one image.

    Args:
        arch: an entry of `model.catalog`.
        image_size: height and width in pixels; None: the arch's.

    Returns:
        By the blocks' names, such as "block2a", from the input on.
    """
    found: dict[str, int] = {}
    for layer in _layers(arch, image_size or arch.resolution, num_classes=1):
        if name := BLOCK.match(layer.name):
            found[name[1]] = found.get(name[1], 0) + layer.filters * layer.pixels
    return found
