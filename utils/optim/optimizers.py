"""Makes optimizers (only the update mathematics) and applies weight decay.

The optimizers are Keras 3's, with updates as single operations (`utils.optim.fused_updates`). Their
weight decay, moving average, clipping and accumulation are not used: the training step does each of
these once, in an obvious place, on reduced gradients. It also assigns the learning rate before
every update.

Weight decay has three conventions, which differ by a factor or in where they act:

- Keras' `l2(wd)` adds `wd * sum(w**2)` to the loss, so `2 * wd * w` to the gradient. This is what
  `--weight_decay 5e-6` means in the EfficientNet reference (`l2_convention="keras"`).
- PyTorch's coupled decay adds `wd * w` to the gradient. This is what `3.0517578125e-05` means in
  the ResNet50 reference (`l2_convention="half"`: it is the gradient of `wd/2 * sum(w**2)`).
- Decoupled decay (AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101) subtracts `lr * wd * w` from
  the weight itself, outside the optimizer's moments.

The updates, with gradient g, rate lr, weight w and slots that start at 0:

- `sgd`: `w -= lr*g`. Ignores `momentum`, as in the reference.
- `momentum`: `m = momentum*m - lr*g; w += m`, or with `nesterov` `w += momentum*m - lr*g`. The
  buffer includes the rate; PyTorch's does not, so the two differ while the rate changes.
- `rmsprop`: `v = rho*v + (1-rho)*g**2; m = momentum*m + lr*g/sqrt(v + epsilon); w -= m`. As in
  TensorFlow, epsilon is inside the root and the buffer includes the rate; PyTorch has epsilon
  outside. `v` starts at 0 (the TF1 EfficientNet code started it at 1).
- `adam`: Kingma & Ba 2015 (arXiv:1412.6980) in the form of its section 2, so epsilon is added to
  the root of the uncorrected v ("epsilon hat").
- `adamw`: the updates of `adam`. Apply `decay_decoupled` before each update.
- `lars`, `lamb`: see `utils.optim.large_batch`; weight decay is part of their update.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from convoy.utils import unknown_name

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

OptimizerName: TypeAlias = Literal["sgd", "momentum", "rmsprop", "adam", "adamw", "lars", "lamb"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)
"""Accepted names, for flags and errors."""

LAYER_WISE = ("lars", "lamb")
"""Optimizers that include weight decay in their own update."""

L2_CONVENTIONS = ("keras", "half")

_NORM_NAMES = ("gamma", "beta")
_STATISTIC_NAMES = ("moving_mean", "moving_variance")


def make_optimizer(
    name: str,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    rho: float = 0.9,
    epsilon: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    trust_coefficient: float = 0.001,
    weight_decay: float = 0.0,
    bn_weight_decay: bool = False,
) -> keras.optimizers.Optimizer:
    """Returns a Keras optimizer with learning rate 0 until one is assigned; updates are as above.

    Args:
        name: one of `OPTIMIZERS`.
        momentum: for `momentum`, `rmsprop` and `lars`, in [0, 1).
        nesterov: for `momentum` and `lars`.
        rho: decay of the squared gradients, for `rmsprop`, in [0, 1).
        epsilon: for `rmsprop`, `adam`, `adamw` and `lamb`. The default 0.001 is from the
            EfficientNet paper's RMSProp; 1e-7 or 1e-8 is usual for Adam, 1e-6 for LAMB.
        beta_1: for `adam`, `adamw` and `lamb`, in [0, 1).
        beta_2: for `adam`, `adamw` and `lamb`, in [0, 1).
        trust_coefficient: for `lars`.
        weight_decay: for `lars` and `lamb`; `wd * w` is added to the gradient.
        bn_weight_decay: for `lars` and `lamb`; decay the parameters of batch norms too.

    Returns:
        An unbuilt optimizer. Build it on the trainable variables outside of any `tf.function`, then
        assign `optimizer.learning_rate` before every `apply`.

    Raises:
        ValueError: the name is unknown (the message has the nearest known one), the optimizer has
            no `nesterov`, or a number is out of range.
    """
    kind = _kind(name)
    _check_nesterov(kind, nesterov)
    _check_shares(momentum=momentum, rho=rho, beta_1=beta_1, beta_2=beta_2)
    _check_positive(epsilon=epsilon, trust_coefficient=trust_coefficient)

    from convoy.utils.optim.fused_updates import SGD, Adam, RMSprop

    # A rate of 0 makes a forgotten assignment visible: nothing trains.
    if kind == "sgd":
        return SGD(learning_rate=0.0, name=kind)
    if kind == "momentum":
        return SGD(learning_rate=0.0, momentum=float(momentum), nesterov=nesterov, name=kind)
    if kind == "rmsprop":
        return RMSprop(learning_rate=0.0, rho=rho, momentum=momentum, epsilon=epsilon, name=kind)
    if kind in LAYER_WISE:
        from convoy.utils.optim.large_batch import LAMB, LARS

        mask = functools.partial(decay_mask, bn_weight_decay=bn_weight_decay)
        if kind == "lars":
            return LARS(weight_decay, mask, momentum, nesterov, trust_coefficient)
        return LAMB(weight_decay, mask, beta_1, beta_2, epsilon)
    # keras.optimizers.AdamW requires its own weight decay, so adamw also uses Adam.
    return Adam(learning_rate=0.0, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, name=kind)


def _kind(name: str) -> str:
    """Returns an optimizer's name in our spelling."""
    kind = str(name).lower()
    if kind not in OPTIMIZERS:
        raise unknown_name("optimizer (--optimizer)", name, OPTIMIZERS)
    return kind


def _check_nesterov(kind: str, nesterov: bool) -> None:
    if nesterov and kind not in ("momentum", "lars"):
        raise ValueError(
            f"--nesterov has no effect with --optimizer {kind}: use --optimizer momentum, or leave "
            "it out."
        )


def _check_shares(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, not {value}.")


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, not {value}.")


def scale_rates(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], scales: Sequence[float]
) -> None:
    """Gives each variable its own fraction of the learning rate from now on.

    An optimizer of `make_optimizer` then multiplies by rate × scale instead of the rate, also in a
    momentum buffer, so that momentum has the same units.

    Args:
        optimizer: an optimizer built on `variables`.
        variables: its trainable variables.
        scales: a factor for each of them, in the same order.

    Raises:
        ValueError: the lengths differ.
    """
    share = {v.path: float(s) for v, s in zip(variables, scales, strict=True)}
    by_index = [share[v.path] for v in optimizer._trainable_variables]
    plain = optimizer.update_step

    def update_step(gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        index = optimizer._get_variable_index(variable)
        plain(gradient, variable, learning_rate * by_index[index])

    optimizer.update_step = update_step


def decay_mask(
    variables: Sequence[Any], *, bn_weight_decay: bool = False, decay_bias: bool = False
) -> list[bool]:
    """Returns for each variable whether weight decay applies to it; only its name decides.

    - `kernel` and `*_kernel` (convolution, depthwise and separable convolution, dense): yes.
    - `gamma` and `beta` (batch norm): only with `bn_weight_decay`.
    - `moving_mean` and `moving_variance`: never.
    - `bias` and `*_bias`: only with `decay_bias`. The EfficientNet reference also applies L2 to the
      biases of squeeze-and-excitation and of the classifier, the ResNet50 reference to the
      classifier's; pass True to reproduce them. By default biases do not decay, as in most newer
      recipes (He et al. 2019, arXiv:1812.01187, section 3.1, "no bias decay").
    - Any other name: yes if the variable has two dimensions or more.

    Args:
        variables: Keras variables (their `path` is read) or `tf.Variable`s (their `name`).
        bn_weight_decay: decay batch norm's scale and shift.
        decay_bias: decay biases.

    Returns:
        A list of bool, in the order of `variables`.
    """
    mask = []
    for variable in variables:
        path = getattr(variable, "path", None) or variable.name
        leaf = str(path).rsplit("/", 1)[-1].split(":")[0]
        if leaf in _NORM_NAMES:
            mask.append(bn_weight_decay)
        elif leaf in _STATISTIC_NAMES:
            mask.append(False)
        elif leaf == "bias" or leaf.endswith("_bias"):
            mask.append(decay_bias)
        elif leaf == "kernel" or leaf.endswith("_kernel"):
            mask.append(True)
        else:
            mask.append(len(variable.shape) >= 2)
    return mask


def l2_coefficient(weight_decay: float, l2_convention: str = "keras") -> float:
    """Returns the factor of w in the gradient of coupled weight decay, for `add_l2`.

    Args:
        weight_decay: the recipe's number (`--weight_decay`).
        l2_convention: `"keras"` (penalty `wd * sum(w**2)`) gives `2 * weight_decay`; `"half"`
            (penalty `wd/2 * sum(w**2)`, PyTorch's coupled decay) gives `weight_decay`.

    Raises:
        ValueError: the convention is unknown.
    """
    if l2_convention not in L2_CONVENTIONS:
        raise unknown_name("L2 convention", l2_convention, L2_CONVENTIONS)
    return (2.0 if l2_convention == "keras" else 1.0) * weight_decay


def add_l2(
    gradients: Sequence[tf.Tensor | None],
    variables: Sequence[Any],
    mask: Sequence[bool],
    coefficient: float | tf.Tensor,
) -> list[tf.Tensor | None]:
    """Applies coupled weight decay: `g + coefficient * w` where `mask` is True.

    Call it on gradients that are already unscaled, reduced over ranks and clipped. Works inside a
    `tf.function`. The coefficient comes from `l2_coefficient`; Keras' `l2(5e-6)` is 1e-5 here.

    Args:
        gradients: float32 tensors, each of its variable's shape, or None (None stays None: a weight
            that the loss does not reach does not decay either).
        variables: Keras variables or `tf.Variable`s, in the order of `gradients`.
        mask: from `decay_mask`, in the same order.
        coefficient: the factor of w.

    Returns:
        The list of new gradients, with the variables' dtypes where the mask is True.

    Raises:
        ValueError: the lengths differ.
    """
    import tensorflow as tf

    return [
        tf.cast(gradient, weight.dtype) + tf.cast(coefficient, weight.dtype) * weight
        if decayed and gradient is not None
        else gradient
        for gradient, weight, decayed in zip(gradients, _raw(variables), mask, strict=True)
    ]


def decay_decoupled(
    variables: Sequence[Any],
    mask: Sequence[bool],
    lr: float | tf.Tensor,
    wd: float | tf.Tensor,
    scales: Sequence[float] | None = None,
) -> None:
    """Applies decoupled weight decay in place: `w -= lr * wd * w` where `mask` is True.

    Call it just before the optimizer's update, with the learning rate of that update; both then
    start from the same w, as in AdamW. Works inside a `tf.function`.

    Args:
        variables: Keras variables or `tf.Variable`s.
        mask: from `decay_mask`, in the same order.
        lr: the learning rate of this step, a float or a scalar tensor.
        wd: the weight decay, a float or a scalar tensor.
        scales: each variable's fraction of the learning rate (`scale_rates`); None means 1.

    Raises:
        ValueError: the lengths differ.
    """
    import tensorflow as tf

    # Cast before the product: lr * wd of two half-precision numbers could underflow.
    factor = tf.cast(lr, tf.float32) * tf.cast(wd, tf.float32)
    shares = [1.0] * len(variables) if scales is None else scales
    for weight, decayed, share in zip(_raw(variables), mask, shares, strict=True):
        if decayed:
            weight.assign_sub(tf.cast(factor * share, weight.dtype) * weight)


def _raw(variables: Sequence[Any]) -> list[tf.Variable]:
    """Returns the `tf.Variable` behind each Keras variable."""
    import keras

    return [v.value if isinstance(v, keras.Variable) else v for v in variables]
