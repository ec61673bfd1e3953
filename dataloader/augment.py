"""AutoAugment and RandAugment for one image: what to do, drawn from a seed, and doing it.

Randomness is stateless. One draw of uniforms from ``seed`` decides everything, so an image's
augmentation depends on its seed alone: not on threads, ranks, devices or what ran before. The draw
(``*_choice``, uniforms in, operations out) is apart from the application (``apply_choice``), so
that each can be tested by itself.

The graph holds each operation once, as a function. A step gathers its operation's number and
argument from constant tables; then one ``StatelessCase`` calls that function and no other. Where
``dataloader.native`` is built, one operation in C++ does all steps instead, to the same bytes.

Sources: AutoAugment, arXiv:1805.09501; RandAugment, arXiv:1909.13719.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dataloader import augment_ops as image_ops
from dataloader import native, policies

Augmenter = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Augmentation, cropping and mixing may be handed one and the same example seed. Each flips its own
# bits of it, so that they do not share random numbers.
_STREAM = (0x41756741, 0x75676D65)


class Choice(NamedTuple):
    """What to do to an image, step by step. The leading dimensions (…) are those of the uniforms.

    Attributes:
        ops: int32 (…, steps), indices into ``policies.OPS``; a step not applied is Identity.
        arguments: float64 (…, steps), with their signs.
        centres: float32 (…, steps, 2), Cutout's centre (y, x) as a share of height and width.
    """

    ops: tf.Tensor
    arguments: tf.Tensor
    centres: tf.Tensor


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
    """Trace every operation once per static image size; all steps and datasets share them."""
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
    """Apply operation number ``op`` of ``policies.OPS``; only that one branch runs.

    Args:
        image: uint8 (H, W, 3).
        op: int32 scalar.
        argument: float64 scalar, with its sign.
        centre: float32 (2,), Cutout's centre (y, x) in [0, 1).
    """
    # tf.switch_case would inline the branches: the executor then visits all of their thousand nodes
    # for every image to find that they are dead, which took a third of the time. This op calls the
    # one function.
    (result,) = tf.raw_ops.StatelessCase(
        branch_index=op,
        input=[image, argument, centre],
        Tout=[tf.uint8],
        branches=_branches(image.shape[0], image.shape[1]),
    )
    result.set_shape(image.shape)
    return result


def apply_choice(image: tf.Tensor, choice: Choice) -> tf.Tensor:
    """Apply the steps of a :class:`Choice` without leading dimensions, in order."""
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


def _signed(ops: tf.Tensor, arguments: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    is_signed = tf.gather(tf.constant([op in policies.SIGNED_OPS for op in policies.OPS]), ops)
    return tf.where(is_signed & (uniforms < 0.5), -arguments, arguments)


def autoaugment_choice(
    uniforms: tf.Tensor,
    policy: str | policies.Policy = "v0",
    *,
    translate_const: float = policies.AUTOAUGMENT_TRANSLATE_CONST,
    cutout_const: float = policies.AUTOAUGMENT_CUTOUT_CONST,
) -> Choice:
    """Choose a sub-policy uniformly, each of its steps with its own probability, and signs.

    Args:
        uniforms: float32 (…, 1 + 4·steps) in [0, 1): the sub-policy, then per step whether to apply
            it, its sign, and Cutout's centre (y, x).
        policy: A name for ``policies.get_policy``, or a policy.
        translate_const: Pixels of translation at level 10.
        cutout_const: Pixels of Cutout's half side at level 10.

    Raises:
        ValueError: If the policy is unknown, or its sub-policies differ in length.
    """
    sub_policies = policies.get_policy(policy) if isinstance(policy, str) else policy
    steps = _steps(sub_policies)
    argument = functools.partial(
        policies.argument, translate_const=translate_const, cutout_const=cutout_const
    )
    op_table = tf.constant([[policies.OPS.index(s.op) for s in sub] for sub in sub_policies])
    probability_table = tf.constant(
        [[s.probability for s in sub] for sub in sub_policies], tf.float32
    )
    argument_table = tf.constant(
        [[argument(s.op, s.level) for s in sub] for sub in sub_policies], tf.float64
    )
    index = tf.cast(tf.floor(uniforms[..., 0] * len(sub_policies)), tf.int32)
    per_step = tf.reshape(
        uniforms[..., 1:], tf.concat([tf.shape(uniforms)[:-1], [steps, 4]], axis=0)
    )
    per_step.set_shape([*uniforms.shape[:-1], steps, 4])
    applied = per_step[..., 0] < tf.gather(probability_table, index)
    ops = tf.where(applied, tf.gather(op_table, index), policies.OPS.index(policies.IDENTITY))
    arguments = _signed(ops, tf.gather(argument_table, index), per_step[..., 1])
    return Choice(ops, arguments, per_step[..., 2:])


def randaugment_choice(
    uniforms: tf.Tensor,
    magnitude: float = 10.0,
    *,
    translate_const: float = policies.RANDAUGMENT_TRANSLATE_CONST,
    cutout_const: float = policies.RANDAUGMENT_CUTOUT_CONST,
) -> Choice:
    """Choose one of 16 operations and Identity per layer, each with chance 1/17, and signs.

    Args:
        uniforms: float32 (…, layers, 4) in [0, 1): the operation, its sign, Cutout's centre (y, x).
        magnitude: The level of every operation.
        translate_const: Pixels of translation at level 10.
        cutout_const: Pixels of Cutout's half side at level 10.
    """
    table = tf.constant(
        [
            policies.argument(
                op, magnitude, translate_const=translate_const, cutout_const=cutout_const
            )
            for op in policies.OPS
        ],
        tf.float64,
    )
    ops = tf.cast(tf.floor(uniforms[..., 0] * len(policies.OPS)), tf.int32)
    return Choice(ops, _signed(ops, tf.gather(table, ops), uniforms[..., 1]), uniforms[..., 2:])


def _uniforms(seed: tf.Tensor, shape: list[int]) -> tf.Tensor:
    # Philox by name: the default generator may differ between devices.
    seed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), tf.constant(_STREAM, tf.int32))
    return tf.random.stateless_uniform(shape, seed, alg="philox")


def _steps(policy: policies.Policy) -> int:
    lengths = {len(sub_policy) for sub_policy in policy}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "An AutoAugment policy needs sub-policies of one and the same length; pad short ones "
            f"with Step('{policies.IDENTITY}', 1.0, 0). Lengths found: {sorted(lengths)}."
        )
    return lengths.pop()


def _check_image(image: tf.Tensor) -> tf.Tensor:
    image = tf.convert_to_tensor(image)
    if image.dtype != tf.uint8 or image.shape.rank != 3 or image.shape[-1] not in (3, None):
        raise ValueError(
            "Augmentation takes one uint8 image of shape (height, width, 3), not "
            f"{image.dtype.name} of shape {image.shape}. Convert with tf.cast, or map before batch."
        )
    return tf.ensure_shape(image, [image.shape[0], image.shape[1], 3])


def autoaugment(
    image: tf.Tensor,
    seed: tf.Tensor,
    policy: str | policies.Policy = "v0",
    *,
    translate_const: float = policies.AUTOAUGMENT_TRANSLATE_CONST,
    cutout_const: float = policies.AUTOAUGMENT_CUTOUT_CONST,
) -> tf.Tensor:
    """Augment an image with AutoAugment (arXiv:1805.09501).

    Args:
        image: uint8 (H, W, 3); H and W may be unknown while tracing.
        seed: int32 (2,). The result is a function of the image and the seed alone.
        policy: A name for ``policies.get_policy``, or a policy.
        translate_const: Pixels of translation at level 10.
        cutout_const: Pixels of Cutout's half side at level 10.

    Returns:
        uint8 (H, W, 3), with the static shape of ``image``.

    Raises:
        ValueError: If the image is not uint8 (H, W, 3), or the policy is unknown.
    """
    image = _check_image(image)
    policy = policies.get_policy(policy) if isinstance(policy, str) else policy
    choice = autoaugment_choice(
        _uniforms(seed, [1 + 4 * _steps(policy)]),
        policy,
        translate_const=translate_const,
        cutout_const=cutout_const,
    )
    return apply_choice(image, choice)


def randaugment(
    image: tf.Tensor,
    seed: tf.Tensor,
    num_layers: int = 2,
    magnitude: float = 10.0,
    *,
    translate_const: float = policies.RANDAUGMENT_TRANSLATE_CONST,
    cutout_const: float = policies.RANDAUGMENT_CUTOUT_CONST,
) -> tf.Tensor:
    """Augment an image with RandAugment (arXiv:1909.13719).

    Args:
        image: uint8 (H, W, 3); H and W may be unknown while tracing.
        seed: int32 (2,). The result is a function of the image and the seed alone.
        num_layers: Operations in a row, each drawn from 16 and Identity alike; at least 1.
        magnitude: Their level, at least 0 and usually up to 15.
        translate_const: Pixels of translation at level 10.
        cutout_const: Pixels of Cutout's half side at level 10.

    Returns:
        uint8 (H, W, 3), with the static shape of ``image``.

    Raises:
        ValueError: If the image is not uint8 (H, W, 3), or a number is out of range.
    """
    if num_layers < 1:
        raise ValueError(f"RandAugment needs num_layers of at least 1, not {num_layers!r}.")
    image = _check_image(image)
    choice = randaugment_choice(
        _uniforms(seed, [num_layers, 4]),
        magnitude,
        translate_const=translate_const,
        cutout_const=cutout_const,
    )
    return apply_choice(image, choice)


def available_augmenters() -> tuple[str, ...]:
    """Return the names that :func:`make_augmenter` accepts."""
    return policies.AUGMENTERS


def make_augmenter(
    name: str,
    *,
    policy: str = "v0",
    num_layers: int = 2,
    magnitude: float = 10.0,
    translate_const: float | None = None,
    cutout_const: float | None = None,
) -> Augmenter | None:
    """Return ``augment(image, seed) -> image``, or None for "none".

    Args:
        name: "autoaugment", "randaugment" or "none".
        policy: AutoAugment's policy.
        num_layers: RandAugment's operations in a row.
        magnitude: RandAugment's level.
        translate_const: Pixels of translation at level 10. None: 250 for AutoAugment, 100 for
            RandAugment.
        cutout_const: Pixels of Cutout's half side at level 10. None: 100 and 40.

    Raises:
        ValueError: If a name is unknown or a number is out of range. All arguments of the chosen
            augmenter are checked here, before any image is met.
    """
    if name not in policies.AUGMENTERS:
        raise ValueError(
            f"Unknown augmenter {name!r}.{policies.nearest_name(name, policies.AUGMENTERS)} "
            f"Known augmenters: {', '.join(policies.AUGMENTERS)}."
        )
    if name == "none":
        return None
    given = {"translate_const": translate_const, "cutout_const": cutout_const}
    options = {key: value for key, value in given.items() if value is not None}
    # The level is checked with the constants; AutoAugment's levels were when its steps were made.
    policies.argument("Cutout", magnitude if name == "randaugment" else 0.0, **options)
    if name == "autoaugment":
        _steps(policies.get_policy(policy))
        return functools.partial(autoaugment, policy=policy, **options)
    if num_layers < 1:
        raise ValueError(f"RandAugment needs num_layers of at least 1, not {num_layers!r}.")
    return functools.partial(randaugment, num_layers=num_layers, magnitude=magnitude, **options)
