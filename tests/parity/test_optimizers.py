"""Ten updates of our optimizers against torch.optim's and timm's; layer-wise learning rates."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import build_model
from convoy.model.layer_groups import depth_from_top
from convoy.model.weights.names import recognise, source_names
from convoy.utils.optim.optimizers import add_l2, decay_decoupled, decay_mask, make_optimizer

STEPS, RATE, DECAY = 10, 0.02, 0.05
RMSPROP = {"rho": 0.9, "momentum": 0.9, "epsilon": 0.001}
ADAM = {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-8}
BETAS = {"betas": (0.9, 0.99), "eps": 1e-8}


# Our optimizer, its options and kind of decay; theirs, and its arguments. timm's RMSprop equals
# TensorFlow's except that its mean square starts at 1. PyTorch's Adam corrects the second moment
# before it adds epsilon: with 1e-8 the difference is far below the tolerance.
CASES = {
    "SGD": ("sgd", {}, "coupled", "torch.SGD", {}),
    "momentum": ("momentum", {}, "coupled", "torch.SGD", {"momentum": 0.9}),
    "Nesterov": (
        *("momentum", {"nesterov": True}, "coupled"),
        *("torch.SGD", {"momentum": 0.9, "nesterov": True}),
    ),
    "RMSprop": (
        *("rmsprop", RMSPROP, "coupled", "timm.RMSpropTF"),
        {"alpha": 0.9, "momentum": 0.9, "eps": 0.001},
    ),
    "Adam": ("adam", ADAM, "coupled", "torch.Adam", BETAS),
    "AdamW": ("adamw", ADAM, "decoupled", "torch.AdamW", BETAS),
    "LARS": (
        *("lars", {"trust_coefficient": 0.01}, "own", "timm.Lars"),
        {"momentum": 0.9, "trust_coeff": 0.01, "eps": 0.0},
    ),
    "LAMB": ("lamb", ADAM, "own", "timm.Lamb", BETAS | {"max_grad_norm": None}),
}


@pytest.mark.parametrize("case", CASES)
def test_ten_updates_equal_those_of_pytorch_or_timm(case, torch, timm):
    name, numbers, style, theirs, arguments = CASES[case]
    rng = np.random.default_rng(5)
    start = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((4, 3), (3,))]
    given = [[rng.normal(0, 0.5, w.shape).astype(np.float32) for w in start] for _ in range(STEPS)]

    weights = [torch.nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in start]
    groups = [{"params": weights[:1], "weight_decay": DECAY},
              {"params": weights[1:], "weight_decay": 0.0}]  # fmt: skip
    library, kind = theirs.split(".")
    kind = getattr(importlib.import_module(f"{library}.optim"), kind)
    optimizer = kind(groups, lr=RATE, **arguments)
    if case == "RMSprop":
        for w in weights:  # the state before the first step, but with TensorFlow's initial values
            optimizer.state[w] = {
                "step": torch.tensor(0.0),
                "square_avg": torch.zeros_like(w),
                "momentum_buffer": torch.zeros_like(w),
            }
    want = []
    for gradients in given:
        for w, g in zip(weights, gradients, strict=True):
            w.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        want.append([w.detach().numpy().copy() for w in weights])

    variables = [keras.Variable(w, name=n) for w, n in zip(start, ("kernel", "bias"), strict=True)]
    mask = decay_mask(variables)
    ours = make_optimizer(name, weight_decay=DECAY, **numbers)
    ours.build(variables)
    ours.learning_rate.assign(RATE)
    for gradients, after in zip(given, want, strict=True):
        gradients = [tf.constant(g) for g in gradients]
        if style == "coupled":
            gradients = add_l2(gradients, variables, mask, DECAY)
        elif style == "decoupled":
            decay_decoupled(variables, mask, RATE, DECAY)
        ours.apply(gradients, variables)
        for v, w in zip(variables, after, strict=True):
            np.testing.assert_allclose(v.numpy(), w, rtol=0, atol=1e-6)


def steps_of_timm(torch, kind, weight_decay, **arguments):
    """Returns the weights after two updates, and the gradients."""
    rng = np.random.default_rng(3)
    w = torch.nn.Parameter(torch.tensor(rng.normal(0, 0.5, (4, 3)), dtype=torch.float64))
    given = [rng.normal(0, 3.0, (4, 3)) for _ in range(2)]
    start = w.detach().numpy().copy()
    optimizer = kind([w], lr=RATE, weight_decay=weight_decay, **arguments)
    for gradient in given:
        w.grad = torch.tensor(gradient)
        optimizer.step()
    return start, given, w.detach().numpy()


def steps_of_ours(name, weight_decay, start, given, clip=None, **numbers):
    from convoy.utils.optim.clipping import clip_by_global_norm

    variables = [keras.Variable(start.astype(np.float32), name="kernel")]
    ours = make_optimizer(name, weight_decay=weight_decay, **numbers)
    ours.build(variables)
    ours.learning_rate.assign(RATE)
    for gradient in given:
        gradients = [tf.constant(gradient.astype(np.float32))]
        ours.apply(clip_by_global_norm(gradients, clip) if clip else gradients, variables)
    return variables[0].numpy()


@pytest.mark.parametrize(
    ("name", "kind", "arguments", "plain", "numbers"),
    [
        ("lamb", "Lamb", BETAS | {"max_grad_norm": None}, "adam", ADAM),
        ("lars", "Lars", {"momentum": 0.9, "eps": 0.0}, "momentum", {"momentum": 0.9}),
    ],
)
def test_without_weight_decay_timms_layer_wise_optimizers_adapt_no_weight(
    name, kind, arguments, plain, numbers, torch, timm
):
    """docs/optimisation.md says what to write instead."""
    kind = getattr(importlib.import_module("timm.optim"), kind)
    start, given, theirs = steps_of_timm(torch, kind, 0.0, **arguments)
    as_plain = steps_of_ours(plain, 0.0, start, given, **numbers)
    np.testing.assert_allclose(as_plain, theirs, rtol=0, atol=1e-6)
    adapted = steps_of_ours(name, 0.0, start, given, **numbers)
    assert np.abs(adapted - theirs).max() > 1e-3
    always = steps_of_timm(torch, kind, 0.0, always_adapt=True, **arguments)[2]
    np.testing.assert_allclose(adapted, always, rtol=0, atol=1e-6)


def test_timms_lamb_clips_to_the_global_norm_1_unless_told_otherwise(torch, timm):
    """configs/literature/resnet50_a1_600e.yaml has this in grad_clip_norm."""
    from timm.optim import Lamb

    start, given, theirs = steps_of_timm(torch, Lamb, DECAY, **BETAS)
    clipped = steps_of_ours("lamb", DECAY, start, given, clip=1.0, **ADAM)
    np.testing.assert_allclose(clipped, theirs, rtol=0, atol=1e-6)
    free = steps_of_ours("lamb", DECAY, start, given, **ADAM)
    assert np.abs(free - theirs).max() > 1e-4


@pytest.mark.parametrize(
    ("theirs", "arch"),
    [
        ("efficientnet_b0", "efficientnet-b0"),
        ("tf_efficientnetv2_s", "efficientnetv2-s"),
        ("resnet18", "resnet18"),
        ("resnet50", "resnet50"),
        ("seresnext101_32x4d", "se-resnext101-32x4d"),
    ],
)
def test_layer_wise_learning_rates_equal_timms(theirs, arch, timm):
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(theirs, num_classes=5)
    name_of = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    want = {name_of[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    ours = build_model(arch, num_classes=5, image_size=64)
    depth = depth_from_top(ours)
    theirs_of = source_names([v.path for v in ours.weights], recognise(list(model.state_dict())))
    got = {theirs_of[v.path]: 0.5 ** depth[v.path] for v in ours.trainable_variables}
    assert got == want
