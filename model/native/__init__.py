"""C++ versions of TensorFlow's CPU kernels that are slow in training, if they have been built.

They cover batch norm together with the activation after it, the gradients of depthwise convolution,
squeeze-and-excitation's mean and product, and the sum of the gradients of a tensor that is used
twice, in float32 and bfloat16. They are used if a training step is traced within `enabled()`: on a
CPU and not with XLA. Otherwise, and if they are not built (`scripts/build_native.sh`), layers use
TensorFlow's own operations, with the same results up to rounding. Forward passes outside training
never need them, so exported models do not contain them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from convoy.model import replay
from convoy.utils import native

FOLDER = Path(__file__).parent
DTYPES = ("float32", "bfloat16")
ACTIVATIONS = {"linear": 0, "relu": 1, "silu": 2}
"""Activations that batch norm can include: Keras' names -> numbers in kernels.h."""


def _prepare(functions: ctypes.CDLL) -> str:
    """Gives the library its threads, and returns the instruction level in use."""
    import tensorflow as tf

    functions.convoy_level.restype = ctypes.c_char_p
    functions.convoy_has_tiles.restype = ctypes.c_bool
    functions.convoy_set_threads(tf.config.threading.get_intra_op_parallelism_threads())
    return functions.convoy_level().decode()


LIBRARY = native.NativeLibrary(
    FOLDER,
    used=False,
    logger=logging.getLogger("convoy.model"),
    without="native training operations %s; steps on this CPU take longer",
    prepare=_prepare,
)
status = LIBRARY.status


def controls() -> ctypes.CDLL:
    """Returns the library's own functions.

    They are `convoy_set_threads(int)`, 0 for one per core; `convoy_level()`, the instruction level
    in use; `convoy_limit_level(int)`; `convoy_has_tiles()`, whether it multiplies bfloat16 matrices
    in tiles.
    """
    LIBRARY.load()  # prepares them
    return LIBRARY.functions()


@functools.lru_cache(maxsize=1)
def has_tiles() -> bool:
    """Returns whether bfloat16 matrix products are many times as fast as float32 (Intel's AMX)."""
    return controls().convoy_has_tiles()


def enabled(wanted: bool = True) -> contextlib.AbstractContextManager[None]:
    """Makes code traced inside use the operations in training, on a CPU and if they are built."""
    return LIBRARY.switched(wanted)


def operations(dtype: str, data_format: str = "channels_last") -> ModuleType | None:
    """Returns the operations if a layer with this dtype and format should use them, or None."""
    if not LIBRARY.used or dtype not in DTYPES or data_format != "channels_last":
        return None
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return None
    return LIBRARY.operations()


def batch_norm(
    ops: ModuleType,
    x: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    activation: str,
    shortcut: Any = None,
) -> tuple[Any, Any, Any]:
    """Applies batch norm to `x (B, H, W, C)`, and an activation from `ACTIVATIONS`.

    Args:
        ops: result of `operations`.
        x: the maps.
        gamma: float32 `(C,)`.
        beta: float32 `(C,)`.
        epsilon: added to the variance.
        activation: a key of `ACTIVATIONS`.
        shortcut: if given, is added before the activation; has x's shape and dtype.

    Returns:
        The result, in x's shape and dtype; and the batch's mean and biased variance, float32
        `(C,)`, without gradients.
    """
    import tensorflow as tf

    settings = {"epsilon": epsilon, "activation": ACTIVATIONS[activation]}

    @tf.custom_gradient
    def forward(x: Any, gamma: Any, beta: Any, *shortcut: Any) -> Any:
        given = {"x": x, "gamma": gamma, "beta": beta, "shortcut": list(shortcut), **settings}
        known = replay.recall()
        if known is None:
            y, mean, variance = ops.convoy_batch_norm(**given)
            replay.remember((mean, variance))
        else:
            mean, variance = known
            y = ops.convoy_normalize(mean=mean, variance=variance, **given)
        y.set_shape(x.shape)

        def backward(dy: Any, *_: Any) -> tuple[Any, ...]:
            dx, dgamma, dbeta, dshortcut = ops.convoy_batch_norm_gradient(
                dy=dy, mean=mean, variance=variance, **given
            )
            for gradient in (dx, *dshortcut):
                gradient.set_shape(x.shape)
            return dx, dgamma, dbeta, *dshortcut

        return (y, mean, variance), backward

    y, mean, variance = forward(x, gamma, beta, *([] if shortcut is None else [shortcut]))
    for statistic in (mean, variance):
        statistic.set_shape(gamma.shape)
    return y, mean, variance


def depthwise(ops: ModuleType, x: Any, kernel: Any, stride: int, padding: str) -> Any:
    """Applies a depthwise convolution to `x (B, H, W, C)` with `kernel (h, w, C, 1)`.

    Args:
        ops: result of `operations`.
        x: the maps.
        kernel: in x's dtype.
        stride: in both directions.
        padding: "same" or "valid".

    Returns:
        `(B, H', W', C)`, in x's dtype.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def forward(x: Any, kernel: Any) -> Any:
        y = tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), padding.upper())
        pads = [
            max((y.shape[axis] - 1) * stride + kernel.shape[axis - 1] - x.shape[axis], 0) // 2
            if padding == "same"
            else 0
            for axis in (1, 2)
        ]

        def backward(dy: Any) -> tuple[Any, Any]:
            dx, dkernel = ops.convoy_depthwise_gradient(
                dy=dy, x=x, kernel=kernel, stride=stride, pad_top=pads[0], pad_left=pads[1]
            )
            dx.set_shape(x.shape)
            dkernel.set_shape(kernel.shape)
            return dx, dkernel

        return y, backward

    return forward(x, kernel)


def convolve(x: Any, kernel: Any, stride: int, padding: str) -> Any:
    """Convolves `x (B, H, W, C)` with `kernel (h, w, C, D)`.

    The kernel's gradient is computed with matrix products, one for each of its positions.

    This is for small maps, where oneDNN's operation takes up to twice the time, see docs/notes.
    Windows must extend beyond the maps equally on all sides: with "same", the kernel must be odd
    and the stride 1.

    Args:
        x: the maps.
        kernel: in x's dtype.
        stride: in both directions.
        padding: "same" or "valid".

    Returns:
        `(B, H', W', D)`, in x's dtype.
    """
    import tensorflow as tf

    strides = (1, stride, stride, 1)

    @tf.custom_gradient
    def forward(x: Any, kernel: Any) -> Any:
        y = tf.nn.conv2d(x, kernel, strides, padding.upper())

        def backward(dy: Any) -> tuple[Any, Any]:
            dx = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=dy,
                strides=strides,
                padding=padding.upper(),
            )
            rows = tf.reshape(dy, (-1, dy.shape[-1]))
            products = [
                tf.matmul(tf.reshape(window, (-1, x.shape[-1])), rows, transpose_a=True)
                for window in _windows(x, kernel.shape, dy.shape, stride, padding)
            ]
            return dx, tf.reshape(tf.stack(products), kernel.shape)

        return y, backward

    return forward(x, kernel)


def _windows(x: Any, kernel: Any, out: Any, stride: int, padding: str) -> Iterator[Any]:
    """Yields the part `(B, H', W', C)` of x that each position of the kernel meets, row by row."""
    import tensorflow as tf

    around = [(side // 2, side // 2) if padding == "same" else (0, 0) for side in kernel[:2]]
    # Pad to whole strides, so that a strided window becomes a slice of its own axis, which
    # TensorFlow copies many times faster than every other value.
    fill = [-(side + sum(pads)) % stride for side, pads in zip(x.shape[1:3], around, strict=True)]
    pads = [(before, after + more) for (before, after), more in zip(around, fill, strict=True)]
    if any(map(any, pads)):
        x = tf.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = (side // stride for side in x.shape[1:3])
    x = tf.reshape(x, (-1, height, stride, width, stride, x.shape[-1]))
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            (top, i), (left, j) = divmod(row, stride), divmod(column, stride)
            yield x[:, top : top + out[1], i, left : left + out[2], j]


def gated(ops: ModuleType, x: Any, gate: Any) -> Any:
    """Returns `x (B, H, W, C)` times `gate (B, 1, 1, C)`."""
    import tensorflow as tf

    @tf.custom_gradient
    def forward(x: Any, gate: Any) -> Any:
        def backward(dy: Any) -> tuple[Any, Any]:
            dx, dgate = ops.convoy_gate_gradient(dy=dy, x=x, gate=gate)
            dx.set_shape(x.shape)
            dgate.set_shape(gate.shape)
            return dx, dgate

        y = ops.convoy_gate(x=x, gate=gate)
        y.set_shape(x.shape)
        return y, backward

    return forward(x, gate)


def squeeze(ops: ModuleType, x: Any) -> tuple[Any, Any]:
    """Returns `x (B, H, W, C)` unchanged, and its means over height and width, `(B, 1, 1, C)`.

    If callers use the returned x, one pass computes both gradients.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def forward(x: Any) -> Any:
        mean = ops.convoy_squeeze(x=x)
        mean.set_shape((x.shape[0], 1, 1, x.shape[-1]))

        def backward(dmaps: Any, dmean: Any) -> Any:
            dx = ops.convoy_squeeze_gradient(dmaps=dmaps, dmean=dmean)
            dx.set_shape(x.shape)
            return dx

        return (tf.identity(x), mean), backward

    return forward(x)


def forked(ops: ModuleType, x: Any) -> tuple[Any, Any]:
    """Returns `x (B, H, W, C)` twice.

    The operation sums the two gradients itself: TensorFlow's sum in bfloat16 takes about four times
    as long.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def forward(x: Any) -> Any:
        def backward(first: Any, second: Any) -> Any:
            dx = ops.convoy_sum(a=first, b=second)
            dx.set_shape(x.shape)
            return dx

        return (tf.identity(x), tf.identity(x)), backward

    return forward(x)
