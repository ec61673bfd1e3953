"""Defines augmentation policies as data: operations, strengths and tables to draw from.

Policies are defined only here, without TensorFlow. `dataloader.augment.choices` turns them into
tables for looking up random numbers, and any other backend (DALI, a GPU) reads the same data.

A *level* is a strength on the scale 0 to `MAX_LEVEL`; `argument` converts it to an operation's
argument (degrees, pixels, a blending factor, a threshold, …). Publications do this differently:
each has a table in `RANGES`. Levels above 10 are allowed: progressive recipes use RandAugment
magnitudes up to 15.

Sources:
    AutoAugment, Cubuk et al. 2019, arXiv:1805.09501. The table "v0" is the ImageNet policy of the
    EfficientNet papers. RandAugment, Cubuk et al. 2020, arXiv:1909.13719.
    TrivialAugment, Müller and Hutter 2021, arXiv:2103.10158.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from convoy.dataloader.augment.levels import CUTOUT, RANGES, TRANSLATE, UNUSED

MAX_LEVEL = 10.0
FILL = 128
"""Grey value for areas that a geometric operation or Cutout leaves empty."""

IDENTITY = "Identity"

AUGMENTERS: tuple[str, ...] = ("autoaugment", "randaugment", "trivialaugment", "none")
"""The augmenters of `dataloader.augment.augmenter.make_augmenter`; here so that --help need not
import TensorFlow.
"""

# Translations and cutouts are in pixels of the image that is augmented, as in the papers' code:
# they do not scale with it. At 224 px the AutoAugment constant moves an image completely out of
# view at level 9 (one step of one sub-policy of v0); pass a smaller constant for small images.
AUTOAUGMENT_TRANSLATE_CONST = 250.0
AUTOAUGMENT_CUTOUT_CONST = 100.0
RANDAUGMENT_TRANSLATE_CONST = 100.0
RANDAUGMENT_CUTOUT_CONST = 40.0
TRIVIALAUGMENT_TRANSLATE_CONST = 32.0
TIMM_TRANSLATE_SHARE = 0.45
"""Translation of timm's RandAugment at level 10, as a fraction of the image's side."""

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

HUE = "Hue"

OPS: tuple[str, ...] = (*RANDAUGMENT_OPS, IDENTITY, HUE)
"""All operations, in the order in which backends number them. Only colour jitter uses Hue."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as ` Did you mean 'v0'?`, or an empty string if no known name is near."""
    by_folded_case = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).casefold(), by_folded_case, n=1, cutoff=0.5)
    return f" Did you mean {by_folded_case[near[0]]!r}?" if near else ""


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError unless `name` is known; the message names the nearest known name."""
    known = tuple(known)
    if name not in known:
        raise ValueError(
            f"Unknown {kind} {name!r}.{nearest_name(name, known)} Known: {', '.join(known)}."
        )


def _check_op(op: str) -> None:
    check_name("augmentation operation", op, OPS)


def _check_level(level: float) -> None:
    if not (math.isfinite(level) and level >= 0):
        raise ValueError(f"An augmentation level must be finite and at least 0, not {level!r}.")


# --- from levels to arguments -------------------------------------------------------------------


def argument(
    op: str,
    level: float,
    *,
    ranges: str = "tf",
    negative: bool = False,
    translate_const: float = AUTOAUGMENT_TRANSLATE_CONST,
    cutout_const: float = AUTOAUGMENT_CUTOUT_CONST,
) -> float:
    """Converts a level L to the argument of an operation; see `RANGES`.

    | operation | "tf" | "increasing" | "wide" | unit |
    |---|---|---|---|---|
    | Rotate | ±30 · L/10 | as tf | ±135 · L/10 | degrees |
    | ShearX, Y | ±0.3 · L/10 | as tf | ±0.99 · L/10 | pixels per pixel |
    | TranslateX, Y | ±constant · L/10 | as tf | as tf, whole | pixels |
    | Color, … | 0.1 + 1.8 · L/10 | 1 ± 0.9 · L/10 | 1 ± 0.99 · L/10 | blending factor |
    | Posterize | int(4 · L/10) | 4 − int(4 · L/10) | 8 − 6 · L/10 | bits kept, 1 to 8 |
    | Solarize | int(256 · L/10) | 256 − int(256 · L/10) | 255 − 255 · L/10 | threshold |
    | SolarizeAdd | int(110 · L/10) | as tf, up to 128 | | added below 128 |
    | Cutout | int(constant · L/10) | as tf | | pixels, half side |

    "original" is "tf" with 4 + int(4 · L/10) bits. The other operations take no argument and get 0.

    Args:
        op: one of `OPS`.
        level: strength, finite and at least 0.
        ranges: one of `RANGES`.
        negative: take the lower value of a signed operation; ignored for others.
        translate_const: pixels of translation at level 10.
        cutout_const: pixels of Cutout's half side at level 10.

    Raises:
        ValueError: the operation is unknown, the level is not valid, or a constant is negative.
    """
    _check_op(op)
    _check_level(level)
    for name, value in (("translate_const", translate_const), ("cutout_const", cutout_const)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of pixels ≥ 0, not {value!r}.")
    chosen = RANGES[ranges].get(op, UNUSED)
    span = {TRANSLATE: translate_const, CUTOUT: cutout_const}.get(chosen.span, chosen.span)
    change = span * (level / MAX_LEVEL)
    if chosen.whole:
        # The small term keeps rounding from moving thirtieths of a range below a whole number.
        up = 0.5 if chosen.whole == "nearest" else 1e-9
        change = math.copysign(math.floor(abs(change) + up), change)
    if chosen.signed and negative:
        change = -change
    return min(max(chosen.base + change, chosen.least), chosen.most)


# --- AutoAugment --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One operation of a sub-policy.

    Args:
        op: one of `OPS`.
        probability: probability of applying it, in [0, 1].
        level: strength, usually in [0, `MAX_LEVEL`].
        ranges: one of `RANGES`: the meaning of the level.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    op: str
    probability: float
    level: float
    ranges: str = "tf"

    def __post_init__(self) -> None:
        _check_op(self.op)
        _check_level(self.level)
        check_name("table of ranges", self.ranges, RANGES)
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


# The ImageNet policy of the AutoAugment paper, table 9, found by a search on a reduced ImageNet.
# Compared with TensorFlow's model garden (`reduced_imagenet`), DALI 1.x (`reduced_image_net`), timm
# 1.0 (`original`) and torchvision 0.20 (`IMAGENET`): all have the same table, but Posterize has two
# meanings.
_REDUCED: Policy = (
    _pair("Posterize", 0.4, 8, "Rotate", 0.6, 9),
    _pair("Solarize", 0.6, 5, "AutoContrast", 0.6, 5),
    _pair("Equalize", 0.8, 8, "Equalize", 0.6, 3),
    _pair("Posterize", 0.6, 7, "Posterize", 0.6, 6),
    _pair("Equalize", 0.4, 7, "Solarize", 0.2, 4),
    _pair("Equalize", 0.4, 4, "Rotate", 0.8, 8),
    _pair("Solarize", 0.6, 3, "Equalize", 0.6, 7),
    _pair("Posterize", 0.8, 5, "Equalize", 1.0, 2),
    _pair("Rotate", 0.2, 3, "Solarize", 0.6, 8),
    _pair("Equalize", 0.6, 8, "Posterize", 0.4, 6),
    _pair("Rotate", 0.8, 8, "Color", 0.4, 0),
    _pair("Rotate", 0.4, 9, "Equalize", 0.6, 2),
    _pair("Equalize", 0.0, 7, "Equalize", 0.8, 8),
    _pair("Invert", 0.6, 4, "Equalize", 1.0, 8),
    _pair("Color", 0.6, 4, "Contrast", 1.0, 8),
    _pair("Rotate", 0.8, 8, "Color", 1.0, 2),
    _pair("Color", 0.8, 8, "Solarize", 0.8, 7),
    _pair("Sharpness", 0.4, 7, "Invert", 0.6, 8),
    _pair("ShearX", 0.6, 5, "Equalize", 1.0, 9),
    _pair("Color", 0.4, 0, "Equalize", 0.6, 3),
    _pair("Equalize", 0.4, 7, "Solarize", 0.2, 4),
    _pair("Solarize", 0.6, 5, "AutoContrast", 0.6, 5),
    _pair("Invert", 0.6, 4, "Equalize", 1.0, 8),
    _pair("Color", 0.6, 4, "Contrast", 1.0, 8),
    _pair("Equalize", 0.8, 8, "Equalize", 0.6, 3),
)

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
    "original": tuple(
        tuple(replace(step, ranges="original") for step in sub_policy) for sub_policy in _REDUCED
    ),
    "reduced": _REDUCED,
}
_ALIASES = {"reduced_imagenet": "reduced", "reduced_image_net": "reduced"}
# Names that denote different tables in different programs.
_AMBIGUOUS = ("imagenet", "image_net")


def list_policies() -> tuple[str, ...]:
    """Returns the policy names that `get_policy` accepts."""
    return tuple(_POLICIES)


def get_policy(name: str = "v0") -> Policy:
    """Returns an AutoAugment policy: a tuple of sub-policies, each a tuple of `Step`.

    Args:
        name: one of `list_policies`, or the name in TensorFlow's model garden or DALI.

    Raises:
        ValueError: the policy is unknown; the message names the nearest one.

    Example:
        >>> get_policy("v0")[0][1]
        Step(op='ShearY', probability=0.8, level=4, ranges='tf')
    """
    name = _ALIASES.get(name, name)
    if name in _AMBIGUOUS:
        raise ValueError(
            f"AutoAugment policy {name!r} is v0 in DALI and original in torchvision: say which."
        )
    check_name("AutoAugment policy", name, _POLICIES)
    return _POLICIES[name]


# --- RandAugment and TrivialAugment -------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """Operations to draw from, all equally likely, and the meaning of their levels.

    Attributes:
        ops: the operations.
        ranges: one of `RANGES`.
        probability: probability that a drawn operation is applied.
    """

    ops: tuple[str, ...]
    ranges: str
    probability: float = 1.0


_TIMM_OPS = tuple(op for op in RANDAUGMENT_OPS if op != "Cutout")
_WIDE_OPS = (IDENTITY, *(op for op in RANGES["wide"]), "AutoContrast", "Equalize")
RANDAUGMENT_SPACES: dict[str, Space] = {
    "tf": Space((*RANDAUGMENT_OPS, IDENTITY), "tf"),
    "timm": Space(_TIMM_OPS, "tf", probability=0.5),
    "timm-inc": Space(_TIMM_OPS, "increasing", probability=0.5),
}
TRIVIALAUGMENT_SPACE = Space(_WIDE_OPS, "wide")
TRIVIALAUGMENT_LEVELS: tuple[float, ...] = tuple(MAX_LEVEL * i / 30 for i in range(31))

_NORMAL_LEVELS = 1024


def randaugment_levels(magnitude: float, std: float = 0.0) -> tuple[float, ...]:
    """Returns RandAugment's equally likely levels: `magnitude`, or 1,024 of N(magnitude, std²).

    They are quantiles of the normal distribution, so that backends only look levels up. They are
    clipped to between 0 and the greater of 10 and `magnitude`, as with timm's `mstd`.

    Raises:
        ValueError: a number is negative or not finite.
    """
    _check_level(magnitude)
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"magnitude_std must be finite and at least 0, not {std!r}.")
    if not std:
        return (float(magnitude),)
    quantile = statistics.NormalDist(magnitude, std).inv_cdf
    most = max(MAX_LEVEL, magnitude)
    drawn = (quantile((i + 0.5) / _NORMAL_LEVELS) for i in range(_NORMAL_LEVELS))
    return tuple(min(max(level, 0.0), most) for level in drawn)


# --- colour jitter and random erasing -----------------------------------------------------------

ERASING_MODES: tuple[str, ...] = ("noise", "constant")
"""Contents of the rectangles of `dataloader.augment.erasing`; here so that --help need not import
TensorFlow.
"""

MAX_JITTER = 255
"""Largest strength of colour jitter: from here on, no grey level but 0 stays within 8 bits."""


def jitter_strengths(values: float | Sequence[float]) -> tuple[float, float, float, float]:
    """Returns the strengths of brightness, contrast, saturation and hue from one to four numbers.

    A single number sets the first three, as in timm; missing ones are 0.

    Raises:
        ValueError: there are none or too many, or one is out of range.
    """
    if isinstance(values, (int, float)):
        values = (values,)
    values = tuple(float(value) for value in values)
    if not 1 <= len(values) <= 4:
        raise ValueError(
            f"Colour jitter takes 1 to 4 strengths (brightness, contrast, saturation, hue), not "
            f"{len(values)}."
        )
    if len(values) == 1:
        values *= 3
    strengths = (*values, *[0.0] * (4 - len(values)))
    if not all(0 <= strength <= MAX_JITTER for strength in strengths):
        raise ValueError(f"Strengths of colour jitter are from 0 to {MAX_JITTER}, not {values}.")
    if strengths[3] > 0.5:
        raise ValueError(f"Colour jitter's hue is at most 0.5, half the circle, not {values[3]}.")
    brightness, contrast, saturation, hue = strengths
    return brightness, contrast, saturation, hue
