"""Augmentation policies as data: operations, strengths and the AutoAugment table. No TensorFlow.

This is the one place where a policy is written down. ``dataloader.augment`` runs it in tf.data,
and any other backend (DALI, a GPU) reads the same tables.

A *level* is a strength on the scale 0 to ``MAX_LEVEL``; :func:`argument` turns it into what an
operation takes (degrees, pixels, a blending factor, a threshold, …). Levels above 10 are allowed:
progressive recipes use RandAugment magnitudes up to 15.

Sources:
    AutoAugment, Cubuk et al. 2019, arXiv:1805.09501. The table "v0" is the ImageNet policy that the
    EfficientNet papers trained with. RandAugment, Cubuk et al. 2020, arXiv:1909.13719.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

MAX_LEVEL = 10.0
FILL = 128
"""Grey that fills what a geometric operation or Cutout leaves empty."""

IDENTITY = "Identity"

AUGMENTERS: tuple[str, ...] = ("autoaugment", "randaugment", "none")
"""What ``dataloader.augment.make_augmenter`` builds; here so that --help costs no TensorFlow."""

# Translations and cutouts are in pixels of the image that is augmented, as in the papers' code:
# they do not scale with it. At 224 px the AutoAugment constant pushes an image wholly out of view
# at level 9 (one step of one sub-policy of v0); pass a smaller constant for small images.
AUTOAUGMENT_TRANSLATE_CONST = 250.0
AUTOAUGMENT_CUTOUT_CONST = 100.0
RANDAUGMENT_TRANSLATE_CONST = 100.0
RANDAUGMENT_CUTOUT_CONST = 40.0

RANDAUGMENT_OPS: tuple[str, ...] = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAdd",
)
"""The 16 operations of RandAugment. Identity is its 17th choice, as likely as each of these."""

OPS: tuple[str, ...] = (*RANDAUGMENT_OPS, IDENTITY)
"""Every operation, in the order in which backends number them."""

SIGNED_OPS: frozenset[str] = frozenset({"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"})
"""Operations whose argument is negated with probability 1/2."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return a hint such as `` Did you mean 'v0'?``, or an empty string when nothing is near."""
    by_folded_case = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).casefold(), by_folded_case, n=1, cutoff=0.5)
    return f" Did you mean {by_folded_case[near[0]]!r}?" if near else ""


def _check_op(op: str) -> None:
    if op not in OPS:
        raise ValueError(
            f"Unknown augmentation operation {op!r}.{nearest_name(op, OPS)} "
            f"Known operations: {', '.join(OPS)}."
        )


def _check_level(level: float) -> None:
    if not (math.isfinite(level) and level >= 0):
        raise ValueError(f"An augmentation level must be finite and at least 0, not {level!r}.")


@dataclass(frozen=True)
class Step:
    """One operation of a sub-policy.

    Args:
        op: One of ``OPS``.
        probability: Chance of applying it, in [0, 1].
        level: Strength, usually in [0, ``MAX_LEVEL``].

    Raises:
        ValueError: If one of them is out of range; the message names the field's value.
    """

    op: str
    probability: float
    level: float

    def __post_init__(self) -> None:
        _check_op(self.op)
        _check_level(self.level)
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(
                f"The probability of {self.op} must lie in [0, 1], not {self.probability!r}."
            )


SubPolicy = tuple[Step, ...]
Policy = tuple[SubPolicy, ...]


def _pair(
    op1: str, probability1: float, level1: float, op2: str, probability2: float, level2: float
) -> SubPolicy:
    return Step(op1, probability1, level1), Step(op2, probability2, level2)


_POLICIES: dict[str, Policy] = {
    "v0": (
        _pair("Equalize", 0.8, 1, "ShearY", 0.8, 4),
        _pair("Color", 0.4, 9, "Equalize", 0.6, 3),
        _pair("Color", 0.4, 1, "Rotate", 0.6, 8),
        _pair("Solarize", 0.8, 3, "Equalize", 0.4, 7),
        _pair("Solarize", 0.4, 2, "Solarize", 0.6, 2),
        _pair("Color", 0.2, 0, "Equalize", 0.8, 8),
        _pair("Equalize", 0.4, 8, "SolarizeAdd", 0.8, 3),
        _pair("ShearX", 0.2, 9, "Rotate", 0.6, 8),
        _pair("Color", 0.6, 1, "Equalize", 1.0, 2),
        _pair("Invert", 0.4, 9, "Rotate", 0.6, 0),
        _pair("Equalize", 1.0, 9, "ShearY", 0.6, 3),
        _pair("Color", 0.4, 7, "Equalize", 0.6, 0),
        _pair("Posterize", 0.4, 6, "AutoContrast", 0.4, 7),
        _pair("Solarize", 0.6, 8, "Color", 0.6, 9),
        _pair("Solarize", 0.2, 4, "Rotate", 0.8, 9),
        _pair("Rotate", 1.0, 7, "TranslateY", 0.8, 9),
        _pair("ShearX", 0.0, 0, "Solarize", 0.8, 4),
        _pair("ShearY", 0.8, 0, "Color", 0.6, 4),
        _pair("Color", 1.0, 0, "Rotate", 0.6, 2),
        _pair("Equalize", 0.8, 4, "Equalize", 0.0, 8),
        _pair("Equalize", 1.0, 4, "AutoContrast", 0.6, 2),
        _pair("ShearY", 0.4, 7, "SolarizeAdd", 0.6, 7),
        _pair("Posterize", 0.8, 2, "Solarize", 0.6, 10),
        _pair("Solarize", 0.6, 8, "Equalize", 0.6, 1),
        _pair("Color", 0.8, 6, "Rotate", 0.4, 5),
    ),
}


def list_policies() -> tuple[str, ...]:
    """Return the names that :func:`get_policy` accepts."""
    return tuple(_POLICIES)


def get_policy(name: str = "v0") -> Policy:
    """Return an AutoAugment policy: a tuple of sub-policies, each a tuple of :class:`Step`.

    Raises:
        ValueError: If there is no such policy; the message names the nearest one.

    Example:
        >>> get_policy("v0")[0]
        (Step(op='Equalize', probability=0.8, level=1), Step(op='ShearY', probability=0.8, level=4))
    """
    if name not in _POLICIES:
        raise ValueError(
            f"Unknown AutoAugment policy {name!r}.{nearest_name(name, _POLICIES)} "
            f"Known policies: {', '.join(_POLICIES)}."
        )
    return _POLICIES[name]


def posterize_bits(level: float) -> int:
    """Return the number of high bits that Posterize keeps, between 1 and 8.

    The published rule is ``int(4 · level / 10)``, which is 0 below level 2.5, and v0 has a step at
    level 2. Pillow takes 0 bits at its word and returns a black image, which destroys the example.
    The papers' TensorFlow code shifted an 8-bit value by 8, which is undefined; on x86 it kept one
    bit. We define that outcome: never fewer than 1 bit. It is what the published accuracies were
    trained with, and it leaves something to learn from.
    """
    _check_level(level)
    return min(max(int(4 * level / MAX_LEVEL), 1), 8)


def argument(
    op: str,
    level: float,
    *,
    translate_const: float = AUTOAUGMENT_TRANSLATE_CONST,
    cutout_const: float = AUTOAUGMENT_CUTOUT_CONST,
) -> float:
    """Turn a level into the argument of an operation, before any random sign.

    ============================== ================================= =================
    operation                      argument                          unit
    ============================== ================================= =================
    Rotate                         30 · L/10                         degrees
    ShearX, ShearY                 0.3 · L/10                        pixels per pixel
    TranslateX, TranslateY         translate_const · L/10            pixels
    Color … Sharpness              1.8 · L/10 + 0.1                  blending factor
    Posterize                      max(1, int(4 · L/10))             bits kept
    Solarize                       int(256 · L/10)                   inverted from here
    SolarizeAdd                    int(110 · L/10)                   added below 128
    Cutout                         int(cutout_const · L/10)          pixels, half side
    AutoContrast, Equalize, Invert 0 (unused)
    ============================== ================================= =================

    The three ``int`` values may exceed 255 (Solarize at level 10 gives 256): they are integers, not
    pixels, and must not be narrowed to 8 bits. A threshold of 256 leaves every pixel as it is.

    Args:
        op: One of ``OPS``.
        level: Strength, finite and at least 0.
        translate_const: Pixels of translation at level 10.
        cutout_const: Pixels of Cutout's half side at level 10.

    Raises:
        ValueError: For an unknown operation, a bad level or a negative constant.
    """
    _check_op(op)
    _check_level(level)
    for name, value in (("translate_const", translate_const), ("cutout_const", cutout_const)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of pixels ≥ 0, not {value!r}.")
    share = level / MAX_LEVEL
    if op == "Rotate":
        return 30.0 * share
    if op in ("ShearX", "ShearY"):
        return 0.3 * share
    if op in ("TranslateX", "TranslateY"):
        return translate_const * share
    if op in ("Color", "Contrast", "Brightness", "Sharpness"):
        return 1.8 * share + 0.1
    if op == "Posterize":
        return float(posterize_bits(level))
    if op == "Solarize":
        return float(int(256 * share))
    if op == "SolarizeAdd":
        return float(int(110 * share))
    if op == "Cutout":
        return float(int(cutout_const * share))
    return 0.0
