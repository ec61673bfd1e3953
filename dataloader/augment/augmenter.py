"""Augments one image from one seed: a policy, then colour jitter, then random erasing.

Randomness is stateless. One draw of uniforms from `seed` decides everything, so an image's
augmentation depends on its seed alone: not on threads, ranks, devices or earlier calls. The draw
(`dataloader.augment.choices`: uniforms in, operations out) is separate from the application
(`apply_choice`), so that each can be tested on its own.

The graph holds each operation once, as a function. A step gathers its operation's number and
argument from constant tables; then one `StatelessCase` calls only that function. If
`dataloader.native` is built, one C++ operation does all steps instead, with the same bytes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from convoy.dataloader import native, philox
from convoy.dataloader.augment import choices, erasing, policies
from convoy.dataloader.augment import operations as image_ops
from convoy.dataloader.augment.choices import Choice

# Augmentation, cropping and mixing may receive the same example seed. Each flips its own bits in
# it, so that they do not share random numbers.
_STREAM = (0x41756741, 0x75676D65)


_UNARY: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "AutoContrast": image_ops.auto_contrast,
    "Equalize": image_ops.equalize,
    "Invert": image_ops.invert,
    policies.IDENTITY: tf.identity,
}
_WITH_ARGUMENT: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "Rotate": image_ops.rotate,
    "Posterize": image_ops.posterize,
    "Solarize": image_ops.solarize,
    "Color": image_ops.color,
    "Contrast": image_ops.contrast,
    "Brightness": image_ops.brightness,
    policies.HUE: image_ops.hue,
    "Sharpness": image_ops.sharpness,
    "ShearX": image_ops.shear_x,
    "ShearY": image_ops.shear_y,
    "TranslateX": image_ops.translate_x,
    "TranslateY": image_ops.translate_y,
    "SolarizeAdd": image_ops.solarize_add,
}


def _apply_named(op: str, image: tf.Tensor, argument: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    if op in _UNARY:
        return _UNARY[op](image)
    if op == "Cutout":
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        position = tf.cast(tf.floor(centre * size), tf.int32)
        return image_ops.cutout(image, argument, position[0], position[1])
    return _WITH_ARGUMENT[op](image, argument)


@functools.lru_cache(maxsize=64)
def _branches(height: int | None, width: int | None) -> list[Callable[..., tf.Tensor]]:
    """Traces every operation once per static image size, for all steps and data sets."""
    signature = [
        tf.TensorSpec([height, width, 3], tf.uint8),
        tf.TensorSpec([], tf.float64),
        tf.TensorSpec([2], tf.float32),
    ]
    with tf.init_scope():
        return [
            tf.function(
                functools.partial(_apply_named, name), input_signature=signature, autograph=False
            ).get_concrete_function()
            for name in policies.OPS
        ]


def apply_op(image: tf.Tensor, op: tf.Tensor, argument: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    """Applies operation number `op` of `policies.OPS`; only that branch runs.

    Args:
        image: uint8 (H, W, 3).
        op: int32 scalar.
        argument: float64 scalar, with its sign.
        centre: float32 (2,), Cutout's centre (y, x) in [0, 1).
    """
    # tf.switch_case would inline the branches: for every image the executor then visits all of
    # their thousand nodes to find that they are dead, which took a third of the time. This op calls
    # the one function.
    (result,) = tf.raw_ops.StatelessCase(
        branch_index=op,
        input=[image, argument, centre],
        Tout=[tf.uint8],
        branches=_branches(image.shape[0], image.shape[1]),
    )
    result.set_shape(image.shape)
    return result


def apply_choice(image: tf.Tensor, choice: Choice) -> tf.Tensor:
    """Applies the steps of a `Choice` in order. The choice has no leading dimensions."""
    ops = native.load()
    if ops is not None and native.AUGMENT_OPS.issuperset(policies.OPS):
        result = ops.convoy_augment(
            image, choice.ops, choice.arguments, choice.centres, names=policies.OPS
        )
        result.set_shape(image.shape)
        return result
    for step in range(choice.ops.shape[-1]):
        image = apply_op(image, choice.ops[step], choice.arguments[step], choice.centres[step])
    return image


def _uniforms(seed: tf.Tensor, shape: list[int]) -> tf.Tensor:
    seed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), tf.constant(_STREAM, tf.int32))
    return philox.uniforms(shape, seed)


def _check_image(image: tf.Tensor) -> tf.Tensor:
    image = tf.convert_to_tensor(image)
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] not in (3, None):
        raise ValueError(
            "Augmentation takes one uint8 image of shape (height, width, 3), not "
            f"{image.dtype.name} of shape {image.shape}. Convert with tf.cast, or map before batch."
        )
    return tf.ensure_shape(image, [image.shape[0], image.shape[1], 3])


class Draw(NamedTuple):
    """Part of a draw: `choose` takes uniforms (…, *shape) and returns a `Choice`.

    `ops` holds, for each step, the operations it may be besides Identity.
    """

    shape: tuple[int, ...]
    choose: Callable[[tf.Tensor], Choice]
    ops: tuple[frozenset[str], ...]


class Recipe(NamedTuple):
    """The augmentation that `make_augmenter` builds. An empty recipe leaves images unchanged.

    Attributes:
        draws: applied one after another; may be empty.
        erasing: probability of random erasing, which comes last; 0 for none.
        erasing_mode: one of `policies.ERASING_MODES`.
    """

    draws: tuple[Draw, ...] = ()
    erasing: float = 0.0
    erasing_mode: str = "noise"

    @property
    def steps(self) -> tuple[frozenset[str], ...]:
        """Returns the possible operations of each step."""
        return tuple(ops for draw in self.draws for ops in draw.ops)

    def uniforms(self, seed: tf.Tensor) -> tf.Tensor:
        """Returns the input of `choose` for an image's int32 (2,) seed: float32 (n,)."""
        return _uniforms(seed, [sum(math.prod(draw.shape) for draw in self.draws)])

    def choose(self, uniforms: tf.Tensor) -> Choice:
        """Returns the choice for one image's uniforms (n,), or for those of many, (…, n)."""
        sizes = [math.prod(draw.shape) for draw in self.draws]
        chosen = []
        for draw, part in zip(self.draws, tf.split(uniforms, sizes, axis=-1), strict=True):
            shape = tf.concat([tf.shape(part)[:-1], draw.shape], axis=0)
            part = tf.ensure_shape(tf.reshape(part, shape), [*part.shape[:-1], *draw.shape])
            chosen.append(draw.choose(part))
        return choices.concatenate(chosen)


class Augmenter:
    """Applies a `Recipe` to one image: `augment(image, seed) -> image`.

    It takes uint8 (H, W, 3), where H and W may be unknown while tracing, and an int32 (2,) seed. It
    returns uint8 with the static shape of the image, a function of these two only, and raises
    ValueError for any other input.

    Attributes:
        recipe: For callers that apply it in another way.

    Raises:
        ValueError: If the recipe's erasing is out of range or unknown.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self._erase = None
        if recipe.erasing:
            self._erase = erasing.make_eraser(recipe.erasing, recipe.erasing_mode)

    def choose(self, seed: tf.Tensor) -> Choice:
        """Returns the operations that a seed selects, without random erasing.

        The recipe must have draws (`recipe.draws`).
        """
        return self.recipe.choose(self.recipe.uniforms(seed))

    # nothing to convert, and AutoGraph takes seconds to find that out
    @tf.autograph.experimental.do_not_convert
    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image, uint8 (H, W, 3); only the seed decides how."""
        image = _check_image(image)
        if self.recipe.draws:
            image = apply_choice(image, self.choose(seed))
        return image if self._erase is None else self._erase(image, seed)


def _policy_draw(
    name: str,
    policy: str | policies.Policy,
    num_layers: int,
    magnitude: float,
    magnitude_std: float,
    space: str,
    constants: dict[str, float],
) -> Draw:
    if name == "autoaugment":
        policy = policies.get_policy(policy) if isinstance(policy, str) else policy
        choose = functools.partial(choices.autoaugment_choice, policy=policy, **constants)
        uniforms = choices.autoaugment_uniforms(policy)  # checks that all have the same length
        ops = tuple(frozenset(step.op for step in steps) for steps in zip(*policy, strict=True))
        return Draw((uniforms,), choose, ops)
    if name == "trivialaugment":
        num_layers, drawn_from = 1, policies.TRIVIALAUGMENT_SPACE
        levels = policies.TRIVIALAUGMENT_LEVELS
    else:
        drawn_from = policies.RANDAUGMENT_SPACES[space]
        levels = policies.randaugment_levels(magnitude, magnitude_std)
    choose = functools.partial(choices.space_choice, space=drawn_from, levels=levels, **constants)
    ops = (frozenset(drawn_from.ops),) * num_layers
    return Draw((num_layers, choices.SPACE_UNIFORMS), choose, ops)


def _constants(
    name: str, space: str, image_size: int, translate: float | None, cutout: float | None
) -> dict[str, float]:
    defaults = {
        "autoaugment": (policies.AUTOAUGMENT_TRANSLATE_CONST, policies.AUTOAUGMENT_CUTOUT_CONST),
        "randaugment": (policies.RANDAUGMENT_TRANSLATE_CONST, policies.RANDAUGMENT_CUTOUT_CONST),
        "trivialaugment": (policies.TRIVIALAUGMENT_TRANSLATE_CONST, 0.0),
    }[name]
    if name == "randaugment" and space != "tf":
        defaults = (policies.TIMM_TRANSLATE_SHARE * image_size, 0.0)
    return {
        "translate_const": defaults[0] if translate is None else translate,
        "cutout_const": defaults[1] if cutout is None else cutout,
    }


def _jitter_draw(strengths: tuple[float, ...]) -> Draw:
    choose = functools.partial(choices.jitter_choice, strengths=strengths)
    ops = frozenset(op for op, s in zip(choices.JITTER_OPS, strengths, strict=True) if s)
    return Draw((choices.JITTER_UNIFORMS,), choose, (ops,) * len(ops))


def make_augmenter(
    name: str,
    *,
    image_size: int = 224,
    policy: str | policies.Policy = "v0",
    num_layers: int = 2,
    magnitude: float = 10.0,
    magnitude_std: float = 0.0,
    space: str = "tf",
    translate_const: float | None = None,
    cutout_const: float | None = None,
    color_jitter: float | Sequence[float] | None = None,
    random_erasing: float = 0.0,
    random_erasing_mode: str = "noise",
) -> Augmenter | None:
    """Returns an `Augmenter`, or None if there is nothing to do.

    Args:
        name: "autoaugment", "randaugment", "trivialaugment" or "none".
        image_size: image side in pixels; timm's translations are fractions of it.
        policy: AutoAugment's policy, by name or as data.
        num_layers: number of operations that RandAugment applies in a row.
        magnitude: RandAugment's level.
        magnitude_std: standard deviation of RandAugment's level, drawn for each operation.
        space: RandAugment's set of operations: one of `policies.RANDAUGMENT_SPACES`.
        translate_const: pixels of translation at level 10. None: 250 for AutoAugment, 100 for
            RandAugment, 0.45 of the side for timm's, 32 for TrivialAugment.
        cutout_const: pixels of Cutout's half side at level 10. None: 100 and 40.
        color_jitter: strengths for `policies.jitter_strengths`.
        random_erasing: probability that a rectangle is erased.
        random_erasing_mode: one of `policies.ERASING_MODES`.

    Raises:
        ValueError: a name is unknown or a number is out of range. All arguments in use are checked
            here, before any image arrives.
    """
    policies.check_name("augmenter", name, policies.AUGMENTERS)
    draws = []
    if name != "none":
        if num_layers < 1:
            raise ValueError(f"RandAugment needs num_layers of at least 1, not {num_layers!r}.")
        policies.check_name("RandAugment space", space, policies.RANDAUGMENT_SPACES)
        constants = _constants(name, space, image_size, translate_const, cutout_const)
        draws.append(
            _policy_draw(name, policy, num_layers, magnitude, magnitude_std, space, constants)
        )
    if color_jitter and any(strengths := policies.jitter_strengths(color_jitter)):
        draws.append(_jitter_draw(strengths))
    for draw in draws:  # errors in the tables show here
        draw.choose(tf.zeros(draw.shape))
    if not draws and not random_erasing:
        return None
    return Augmenter(Recipe(tuple(draws), random_erasing, random_erasing_mode))
