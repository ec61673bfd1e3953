"""Mixes a batch with MixUp and CutMix. Random numbers belong to examples, not to batches.

Sample i is mixed with sample B − 1 − i. Its λ, CutMix box and choice between the methods are drawn
from its own seed, so they depend only on (seed, epoch, global example). Only the partner depends on
how examples fall into batches.

Labels are mixed with each sample's own share. The loss smooths labels: smoothing is linear, so
smoothing a mixed label equals mixing smoothed ones.

Sources: mixup, Zhang et al. 2018, arXiv:1710.09412; CutMix, Yun et al. 2019, arXiv:1905.04899.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from convoy.dataloader.augment.operations import Exact
from convoy.utils.optional import known

Size: TypeAlias = int | tf.Tensor

# Gives mixing its own random numbers; augmentation may receive the same example seeds.
_STREAM = (0x6D697869, 0x6E674D42)
_QUANTILES = 4096
_THREEFRY_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_THREEFRY_PARITY = 0x1BD11BDA


# --- random numbers -----------------------------------------------------------------------------


def threefry2x32(
    key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns 64 random bits per element: Threefry-2x32 with 20 rounds.

    TensorFlow's stateless generators take one seed per call; a batch has one per example. This one
    is elementwise, so a whole batch costs about a hundred small ops instead of B calls.

    Args:
        key: two uint32 tensors that broadcast with `counter`.
        counter: two uint32 tensors.

    Returns:
        Two uint32 tensors.

    Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".
    """
    parity = tf.constant(_THREEFRY_PARITY, tf.uint32)
    keys = (*key, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(key[0], key[1]), parity))
    x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(1, 6):
        for bits in _THREEFRY_ROTATIONS[(group - 1) % 2]:
            x0 = x0 + x1
            left = tf.bitwise.left_shift(x1, tf.constant(bits, tf.uint32))
            right = tf.bitwise.right_shift(x1, tf.constant(32 - bits, tf.uint32))
            x1 = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_or(left, right), x0)
        x0 = x0 + keys[group % 3]
        x1 = x1 + keys[(group + 1) % 3] + tf.constant(group, tf.uint32)
    return x0, x1


def example_uniforms(seeds: tf.Tensor) -> tf.Tensor:
    """Draws four uniforms per example from its own seed.

    Args:
        seeds: int32 (B, 2).

    Returns:
        float32 (B, 4) in [0, 1), multiples of 2^-24. A row depends only on its seed.
    """
    seeds = tf.bitwise.bitwise_xor(tf.cast(seeds, tf.int32), tf.constant(_STREAM, tf.int32))
    seeds = tf.bitcast(seeds, tf.uint32)
    key = (seeds[:, 0, tf.newaxis], seeds[:, 1, tf.newaxis])
    counter = tf.constant([[0, 1]], tf.uint32)
    bits = tf.concat(threefry2x32(key, (counter, tf.zeros_like(counter))), axis=1)
    high = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
    return tf.cast(tf.cast(high, tf.int32), tf.float32) * 2.0**-24


def beta_quantiles(alpha: float) -> tuple[float, ...]:
    """Tabulates the quantile function of Beta(α, α) at 0, 1/4096, …, 1.

    `sample_beta` interpolates between these. The table's points are exact, so the cumulative
    distribution is off by less than 1/4096 everywhere, for any α. (The usual method, Gamma
    variates, would need a rejection loop per example.)

    Args:
        alpha: both parameters; finite and positive.

    Returns:
        4097 increasing numbers from 0 to 1.

    Raises:
        ValueError: `alpha` is not finite and positive.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"A Beta distribution needs a finite alpha above 0, not {alpha!r}.")
    half = _QUANTILES // 2
    # Bisect only the lower half, where quantiles near 0 keep their precision; the distribution is
    # symmetric. Seventy halvings of [0, 1/2] go below float32's smallest step for any realistic α.
    with tf.init_scope(), tf.device("CPU:0"):
        target = tf.range(half + 1, dtype=tf.float64) / _QUANTILES
        a = tf.fill([half + 1], tf.constant(alpha, tf.float64))
        low = tf.zeros([half + 1], tf.float64)
        high = tf.fill([half + 1], tf.constant(0.5, tf.float64))
        for _ in range(70):
            middle = 0.5 * (low + high)
            too_low = tf.math.betainc(a, a, middle) < target
            low, high = tf.where(too_low, middle, low), tf.where(too_low, high, middle)
        lower = [0.0, *high.numpy().tolist()[1:half], 0.5]
    return (*lower, *(1.0 - value for value in reversed(lower[:-1])))


def sample_beta(uniforms: tf.Tensor, quantiles: tuple[float, ...]) -> tf.Tensor:
    """Converts uniforms to Beta variates by inverse transform sampling with `beta_quantiles`.

    Args:
        uniforms: float32 in [0, 1), any shape.
        quantiles: values of the quantile function at equal steps from 0 to 1.

    Returns:
        float32 in [0, 1], of the same shape.
    """
    table = tf.constant(quantiles, tf.float32)
    position = uniforms * (len(quantiles) - 1)
    index = tf.cast(tf.floor(position), tf.int32)
    share = position - tf.floor(position)
    return tf.gather(table, index) * (1.0 - share) + tf.gather(table, index + 1) * share


# --- mixing -------------------------------------------------------------------------------------


def _mix(values: tf.Tensor, own_share: tf.Tensor, exact: Exact = tf.identity) -> tf.Tensor:
    """Blends float32 (B, …) with its reverse; `own_share` broadcasts against it."""
    # Two products instead of one difference: shares of 0 and 1 give exactly one image's bytes.
    own, partners = own_share * values, (1.0 - own_share) * tf.reverse(values, axis=[0])
    return exact(own) + exact(partners)


class Mixture(NamedTuple):
    """Instructions for mixing the images of a batch.

    Attributes:
        shares: float32 (B,), weight of each sample's own pixels outside its box; None means 1.
        boxes: int32 (B, 4) from `cutmix_boxes`, where the partner's pixels go; or None.
        labels: float32 (B, classes), already mixed.
    """

    shares: tf.Tensor | None
    boxes: tf.Tensor | None
    labels: tf.Tensor


def mix_images(images: tf.Tensor, mixture: Mixture, exact: Exact = tf.identity) -> tf.Tensor:
    """Mixes images (B, H, W, C), uint8 or float in 0–255.

    Returns float32 of that shape, not rounded.

    Args:
        images: the batch.
        mixture: what to mix, as `Mixer.draw` returns it.
        exact: receives the two products of each sum; see `dataloader.augment.on_device`.
    """
    images, shares, boxes = tf.cast(images, tf.float32), mixture.shares, mixture.boxes
    if boxes is None:
        return _mix(images, known(shares)[:, tf.newaxis, tf.newaxis, tf.newaxis], exact)
    masks = _box_masks(boxes, tf.shape(images)[1], tf.shape(images)[2])
    if shares is None:
        return tf.where(masks[..., tf.newaxis], tf.reverse(images, axis=[0]), images)
    # With both methods: one pass over the pixels, with a weight per sample and pixel.
    shares = tf.where(masks, 0.0, shares[:, tf.newaxis, tf.newaxis])
    return _mix(images, shares[..., tf.newaxis], exact)


def cutmix_boxes(
    lambdas: tf.Tensor, centres: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
    """Returns the boxes to replace: √(1 − λ) of each image side, around the centre, clipped.

    Args:
        lambdas: float32 (B,) in [0, 1].
        centres: float32 (B, 2), centres (y, x) as shares of height and width, in [0, 1).
        height: rows of an image.
        width: columns of an image.

    Returns:
        int32 (B, 4): top, left, bottom, right in pixels; bottom and right are excluded.
    """
    size = tf.stack([tf.cast(height, tf.int32), tf.cast(width, tf.int32)])
    real_size = tf.cast(size, tf.float32)
    sides = tf.cast(tf.sqrt(1.0 - lambdas)[:, tf.newaxis] * real_size, tf.int32)
    middles = tf.cast(tf.floor(centres * real_size), tf.int32)
    # Computed from both ends, so that an odd side keeps its length.
    start = middles - sides // 2
    first, last = tf.clip_by_value(start, 0, size), tf.clip_by_value(start + sides, 0, size)
    return tf.concat([first, last], axis=1)


def _box_masks(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns bool (B, H, W), True inside the boxes."""
    top, left, bottom, right = (boxes[:, i, tf.newaxis] for i in range(4))
    y, x = tf.range(height)[tf.newaxis], tf.range(width)[tf.newaxis]
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]


def _outside_shares(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the share of pixels outside each image's own box: float32 (B,)."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return 1.0 - tf.cast(areas, tf.float32) / tf.cast(height * width, tf.float32)


class Mixer:
    """Applies MixUp, CutMix or both: `mix(images, labels, weights, seeds)`.

    Whether and how a sample is mixed is drawn from its own seed, as its λ is, so samples of a batch
    differ. (timm and torchvision draw all three once per batch; the chances of one sample are the
    same.) MixUp's λ becomes max(λ, 1 − λ), so that a sample keeps the larger share of itself;
    CutMix's λ stays as drawn, as in its paper. A sample whose partner has weight 0 (padding or an
    unreadable file) is not mixed.

    It takes uint8 images (B, H, W, 3), int32 labels (B,), float32 weights (B,) and int32 seeds
    (B, 2), one per example. It returns float32 images in 0–255, float32 labels (B, num_classes) and
    the weights.

    Attributes:
        methods: Which of "mixup" and "cutmix" there are.

    Args:
        mixup_alpha, cutmix_alpha: One of them at least above 0.
        num_classes, switch_prob, prob: As in `make_mixer`.
    """

    def __init__(
        self,
        mixup_alpha: float,
        cutmix_alpha: float,
        num_classes: int,
        switch_prob: float,
        prob: float,
    ):
        self._mixup = beta_quantiles(mixup_alpha) if mixup_alpha else None
        self._cutmix = beta_quantiles(cutmix_alpha) if cutmix_alpha else None
        self._classes, self._switch_prob, self._prob = num_classes, switch_prob, prob
        used = (("mixup", self._mixup), ("cutmix", self._cutmix))
        self.methods = frozenset(name for name, on in used if on is not None)

    def draw(
        self, labels: tf.Tensor, weights: tf.Tensor, seeds: tf.Tensor, height: Size, width: Size
    ) -> Mixture:
        """Returns how to mix a batch, with its mixed labels."""
        one_hot = tf.one_hot(labels, self._classes, dtype=tf.float32)
        uniforms = example_uniforms(seeds)
        # One uniform decides: CutMix below prob · switch_prob, MixUp below prob, otherwise neither.
        mixed = (uniforms[:, 3] < self._prob) & (tf.reverse(weights, axis=[0]) > 0)
        cuts = uniforms[:, 3] < self._prob * self._switch_prob
        shares = boxes = None
        label_shares = tf.ones_like(weights)
        if self._mixup is not None:
            lambdas = sample_beta(uniforms[:, 0], self._mixup)
            blended = mixed & ~cuts if self._cutmix is not None else mixed
            shares = tf.where(blended, tf.maximum(lambdas, 1.0 - lambdas), 1.0)
            label_shares = shares
        if self._cutmix is not None:
            lambdas = sample_beta(uniforms[:, 0], self._cutmix)
            cut = mixed & cuts if self._mixup is not None else mixed
            lambdas = tf.where(cut, lambdas, 1.0)
            boxes = cutmix_boxes(lambdas, uniforms[:, 1:3], height, width)
            label_shares = label_shares * _outside_shares(boxes, height, width)
        return Mixture(shares, boxes, _mix(one_hot, label_shares[:, tf.newaxis]))

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, seeds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Draws a mixture, and returns mixed images, soft labels, and the weights unchanged."""
        mixture = self.draw(labels, weights, seeds, tf.shape(images)[1], tf.shape(images)[2])
        return mix_images(images, mixture), mixture.labels, weights


def make_mixer(
    mixup_alpha: float,
    cutmix_alpha: float,
    num_classes: int,
    *,
    switch_prob: float = 0.5,
    prob: float = 1.0,
) -> Mixer | None:
    """Returns a `Mixer`, or None if there is nothing to mix.

    Args:
        mixup_alpha: α of MixUp's Beta(α, α); 0 switches MixUp off.
        cutmix_alpha: α of CutMix's Beta(α, α); 0 switches CutMix off.
        num_classes: length of a label row.
        switch_prob: probability of CutMix instead of MixUp for a mixed sample, if both are on.
        prob: probability that a sample is mixed at all.

    Raises:
        ValueError: an alpha is negative or not finite, a probability is outside [0, 1], or
            `num_classes` is below 1.
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"{name} must be finite and at least 0, not {alpha!r}.")
    for name, value in (("mix_switch_prob", switch_prob), ("mix_prob", prob)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a probability, 0 to 1, not {value!r}.")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes!r}.")
    if not (mixup_alpha or cutmix_alpha) or not prob:
        return None
    if mixup_alpha and cutmix_alpha and switch_prob in (0, 1):  # then only one of them is used
        mixup_alpha, cutmix_alpha = (0.0, cutmix_alpha) if switch_prob else (mixup_alpha, 0.0)
    return Mixer(mixup_alpha, cutmix_alpha, num_classes, switch_prob, prob)
