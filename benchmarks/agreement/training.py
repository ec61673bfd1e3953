"""Batch norm, optimizers, moving averages, label smoothing and mixing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.agreement.case import Case, Program, ask

CLASSES, STEPS, RATE = 10, 5, 0.1


def cases(installed: dict[str, bool]) -> list[Case]:
    """Returns the cases of all kinds."""
    found = [*_batch_norm(installed), *_optimizers(installed), _moving_average(installed)]
    return [*found, *_smoothing(installed), *_mixing(installed)]


def _batch_norm(installed: dict[str, bool]) -> list[Case]:
    """Returns the running variance after one batch whose variance is 4, with the defaults."""
    import keras

    batch = np.array([-2.0, 2.0, -2.0, 2.0], np.float32).reshape(4, 1, 1, 1)

    def keras_own(**options: Any) -> Program:
        def run() -> np.ndarray:
            layer = keras.layers.BatchNormalization(**options)
            layer(batch, training=True)
            return np.asarray(layer.moving_variance)

        return run

    programs = {
        "Keras (momentum 0.99)": keras_own(),
        "Keras, momentum 0.9": keras_own(momentum=0.9),
    }
    if installed["torch"]:
        import torch

        def pytorch() -> np.ndarray:
            layer = torch.nn.BatchNorm2d(1)
            layer(torch.from_numpy(batch))
            return layer.running_var.numpy()

        programs["PyTorch (momentum 0.1)"] = pytorch
    what = "batch norm's running variance, 1 before, after a batch of 4 values with variance 4"
    return [ask(what, programs, 1e-6)]


def _gradients() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.5, (4, 3)), [rng.normal(0, 0.5, (4, 3)) for _ in range(STEPS)]


def _of_torch(make: Callable[[list[Any]], Any]) -> Program:
    def run() -> np.ndarray:
        import torch

        start, gradients = _gradients()
        weight = torch.nn.Parameter(torch.tensor(start))
        optimizer = make([weight])
        for gradient in gradients:
            weight.grad = torch.tensor(gradient)
            optimizer.step()
        return weight.detach().numpy()

    return run


def _of_keras(make: Callable[[], Any], decay: float = 0.0) -> Program:
    def run() -> np.ndarray:
        import keras
        import tensorflow as tf

        start, gradients = _gradients()
        weight = keras.Variable(start.astype(np.float32), name="kernel")
        optimizer = make()
        optimizer.build([weight])
        optimizer.learning_rate = RATE
        for gradient in gradients:
            given = tf.constant(gradient.astype(np.float32)) + decay * tf.convert_to_tensor(weight)
            optimizer.apply([given], [weight])
        return np.asarray(weight)

    return run


def _optimizers(installed: dict[str, bool]) -> list[Case]:
    """Returns a weight after five updates, with the same numbers in each program."""
    import keras

    from convoy.utils.optim.optimizers import make_optimizer

    def ours(name: str, **numbers: Any) -> Program:
        return _of_keras(lambda: make_optimizer(name, **numbers))

    adam = {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-3}
    asked: dict[str, dict[str, Program]] = {
        "momentum 0.9": {
            "Keras": _of_keras(lambda: keras.optimizers.SGD(RATE, 0.9)),
            "Convoy": ours("momentum", momentum=0.9),
        },
        "RMSprop, rho 0.9, epsilon 0.001": {
            "Keras": _of_keras(lambda: keras.optimizers.RMSprop(RATE, 0.9, epsilon=1e-3)),
            "Convoy": ours("rmsprop", rho=0.9, momentum=0.0, epsilon=1e-3),
        },
        "Adam, epsilon 0.001": {
            "Keras": _of_keras(lambda: keras.optimizers.Adam(RATE, 0.9, 0.99, 1e-3)),
            "Convoy": ours("adam", **adam),
        },
        "LAMB, weight decay 0": {
            "Keras": _of_keras(lambda: keras.optimizers.Lamb(RATE, 0.9, 0.99, 1e-6)),
            "Convoy": ours("lamb", beta_2=0.99, epsilon=1e-6),
        },
        "LARS, weight decay 0": {
            "Convoy": ours("lars", momentum=0.9, trust_coefficient=0.1),
        },
    }
    _add_torch(asked, installed)
    return [ask(f"{what}: a weight after {STEPS} updates", p, 1e-5) for what, p in asked.items()]


def _add_torch(asked: dict[str, dict[str, Program]], installed: dict[str, bool]) -> None:
    """Adds the optimizers of PyTorch and timm, where these are installed."""
    if installed["torch"]:
        from torch import optim

        asked["momentum 0.9"]["PyTorch"] = _of_torch(lambda w: optim.SGD(w, RATE, momentum=0.9))
        asked["RMSprop, rho 0.9, epsilon 0.001"]["PyTorch"] = _of_torch(
            lambda w: optim.RMSprop(w, RATE, alpha=0.9, eps=1e-3)
        )
        asked["Adam, epsilon 0.001"]["PyTorch"] = _of_torch(
            lambda w: optim.Adam(w, RATE, betas=(0.9, 0.99), eps=1e-3)
        )
    if installed["timm"]:
        from timm import optim as timm

        asked["RMSprop, rho 0.9, epsilon 0.001"]["timm, RMSpropTF"] = _of_torch(
            lambda w: timm.RMSpropTF(w, RATE, alpha=0.9, eps=1e-3)
        )
        lamb = {"lr": RATE, "betas": (0.9, 0.99), "weight_decay": 0.0}
        asked["LAMB, weight decay 0"] |= {
            "timm (clips to norm 1)": _of_torch(lambda w: timm.Lamb(w, **lamb)),
            "timm, max_grad_norm=None": _of_torch(
                lambda w: timm.Lamb(w, **lamb, max_grad_norm=None)
            ),
            "timm, always_adapt, max_grad_norm=None": _of_torch(
                lambda w: timm.Lamb(w, **lamb, max_grad_norm=None, always_adapt=True)
            ),
        }
        lars = {"lr": RATE, "momentum": 0.9, "trust_coeff": 0.1, "eps": 0.0}
        asked["LARS, weight decay 0"] |= {
            "timm": _of_torch(lambda w: timm.Lars(w, **lars)),
            "timm, always_adapt": _of_torch(lambda w: timm.Lars(w, **lars, always_adapt=True)),
        }


def _moving_average(installed: dict[str, bool]) -> Case:
    """Returns the average's batch-norm mean, 0 at the start and 1 afterwards, decay 0.5."""
    import keras
    import tensorflow as tf

    from convoy.utils.optim.ema import EMA

    def small() -> Any:
        norm = keras.layers.BatchNormalization(momentum=0.0)
        return keras.Sequential([keras.Input((1,)), norm]), norm

    def keras_own() -> np.ndarray:
        model, norm = small()
        optimizer = keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.5)
        model.compile(optimizer, "mse")
        norm.moving_mean.assign([0.0])
        model.fit(np.ones((4, 1), np.float32), np.zeros((4, 1)), batch_size=4, verbose=0)
        optimizer.finalize_variable_values(model.trainable_variables)
        return np.asarray(norm.moving_mean)

    def ours() -> np.ndarray:
        model, norm = small()
        average = EMA(model.variables, 0.5, warmup=False)
        norm.moving_mean.assign([1.0])
        average.update(tf.constant(0))
        with average.swap():
            return np.asarray(norm.moving_mean)

    programs: dict[str, Program] = {"Keras, use_ema": keras_own, "Convoy": ours}
    if installed["timm"]:
        import torch
        from timm.utils import ModelEmaV3

        def timm() -> np.ndarray:
            model = torch.nn.BatchNorm1d(1)
            average = ModelEmaV3(model, decay=0.5)
            model.running_mean.fill_(1.0)
            average.update(model, step=2)  # the first only copies
            return average.module.running_mean.numpy()

        programs["timm, ModelEmaV3"] = timm
    what = "moving average with decay 0.5: batch norm's mean, 0 before and 1 after the update"
    return ask(what, programs, 1e-6)


def _smoothing(installed: dict[str, bool]) -> list[Case]:
    """Returns losses of the same logits with label smoothing 0.1."""
    import keras
    import tensorflow as tf

    from convoy.utils.optim.losses import binary_cross_entropy, cross_entropy

    logits = np.random.default_rng(0).normal(0, 2, (4, CLASSES)).astype(np.float32)
    labels = np.arange(4)
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    softmax = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    sigmoid = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    given = tf.constant(logits), tf.constant(labels)
    soft: dict[str, Program] = {
        "Keras": lambda: np.array([softmax(one_hot, logits)]),
        "Convoy": lambda: np.array([tf.reduce_mean(cross_entropy(*given, 0.1))]),
    }
    binary: dict[str, Program] = {
        "Keras, BinaryCrossentropy": lambda: np.array([sigmoid(one_hot, logits)]),
        "Convoy, --loss bce": lambda: np.array([tf.reduce_mean(binary_cross_entropy(*given, 0.1))]),
    }
    if installed["torch"]:
        import torch

        tensors = torch.from_numpy(logits), torch.from_numpy(labels)
        soft["PyTorch"] = lambda: np.array(
            [torch.nn.functional.cross_entropy(*tensors, label_smoothing=0.1)]
        )
    if installed["timm"]:
        from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy

        soft["timm"] = lambda: np.array([LabelSmoothingCrossEntropy(0.1)(*tensors)])
        binary["timm, BinaryCrossEntropy"] = lambda: np.array([BinaryCrossEntropy(0.1)(*tensors)])
    return [
        ask("softmax cross-entropy, label smoothing 0.1", soft, 1e-5),
        ask("binary cross-entropy, label smoothing 0.1", binary, 1e-5),
    ]


def _mixing(installed: dict[str, bool]) -> list[Case]:
    """Returns how many different shares a batch of 64 has, and labels' shares against pixels'."""
    mixup, cutmix = _mixers(installed, "mixup"), _mixers(installed, "cutmix")

    def kinds(mixer: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Program:
        def run() -> np.ndarray:
            own = mixer()[1].max(axis=1)
            return np.array([len(np.unique(own.round(4)))])

        return run

    def gap(mixer: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Program:
        def run() -> np.ndarray:
            images, labels = mixer()
            shares = [[np.mean(image == 2 * k) for k in range(len(labels))] for image in images]
            return np.array([np.abs(np.array(shares) - labels).max().round(3)])

        return run

    one = {name: kinds(mixer) for name, mixer in mixup.items()}
    two = {name: gap(mixer) for name, mixer in cutmix.items()}
    return [
        ask("mixup of 64 images: number of different shares", one, 1.0),
        ask("CutMix of 64 images: the largest gap of a label's share to its pixels'", two, 0.01),
    ]


def _mixers(
    installed: dict[str, bool], kind: str
) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """Returns programs that mix 64 plain images, each of its own class and grey level."""
    import keras
    import tensorflow as tf

    count = 64
    images = np.repeat(2.0 * np.arange(count, dtype=np.float32), 64 * 64 * 3).reshape(-1, 64, 64, 3)
    labels = np.arange(count)
    one_hot = np.eye(count, dtype=np.float32)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        from convoy.dataloader.augment.mixing import make_mixer

        alphas = (1.0, 0.0) if kind == "mixup" else (0.0, 1.0)
        mixer = make_mixer(*alphas, count)
        if mixer is None:
            raise ValueError("nothing is mixed")
        seeds = tf.stack([tf.range(count), tf.range(count) + 7], 1)
        given = tf.constant(images.astype(np.uint8)), tf.constant(labels, tf.int32)
        mixed, soft, _ = mixer(*given, tf.ones(count), seeds)
        return mixed.numpy(), soft.numpy()

    def keras_own() -> tuple[np.ndarray, np.ndarray]:
        layer = (keras.layers.MixUp if kind == "mixup" else keras.layers.CutMix)(1.0, seed=0)
        given = {"images": tf.constant(images), "labels": tf.constant(one_hot)}
        mixed = layer(given, training=True)
        return np.asarray(mixed["images"]), np.asarray(mixed["labels"])

    found = {"Convoy": ours, "Keras": keras_own}
    if installed["timm"]:
        import torch
        from timm.data import Mixup
        from torchvision.transforms import v2

        tensors = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

        def timm() -> tuple[np.ndarray, np.ndarray]:
            np.random.seed(0)
            alphas = (1.0, 0.0) if kind == "mixup" else (0.0, 1.0)
            mixer = Mixup(*alphas, label_smoothing=0.0, num_classes=count)
            mixed, soft = mixer(tensors[0].clone(), tensors[1])
            return mixed.permute(0, 2, 3, 1).numpy(), soft.numpy()

        def torchvision() -> tuple[np.ndarray, np.ndarray]:
            torch.manual_seed(0)
            mixer = (v2.MixUp if kind == "mixup" else v2.CutMix)(num_classes=count)
            mixed, soft = mixer(*tensors)
            return mixed.permute(0, 2, 3, 1).numpy(), soft.numpy()

        found |= {"timm (batch mode)": timm, "torchvision": torchvision}
    return found
