"""Models of every family with few blocks, for tests that trace training steps."""

from dataclasses import replace

from convoy.model import catalog, efficientnet, resnet
from convoy.model.options import Options, ResNetOptions

STAGES = {"efficientnet-b0": (0, 1, 3), "efficientnet-lite0": (0, 1), "efficientnetv2-s": (0, 1, 3)}
OTHERS = [name for name in STAGES if name != "efficientnet-b0"]
OTHERS += [
    "resnet18",
    "resnet50",
    "resnet50d",
    "resnext50-32x4d",
    "se-resnext101-32x4d",
    "resnetrs50",
]


def small(name, **options):
    """Returns a family's model with one block in each of a few stages, for images of 32 px."""
    arch = catalog.get_arch(name)
    settings = {"num_classes": 5, "image_size": 32, "seed": 0, "stochastic_depth": 0.5} | options
    if arch.family == "resnet":
        few = replace(arch, repeats=(1, 2))
        return resnet.build(few, ResNetOptions(**{"dropout": 0.3} | settings))
    stages = [replace(arch.stages[n], repeats=2 if n else 1) for n in STAGES[name]]
    few = replace(arch, stages=tuple(stages), depth=1.0)
    return efficientnet.build(few, Options(**settings))


def block_names(model):
    """Returns the names of a model's blocks, from the input on."""
    found = (catalog.BLOCK.match(layer.name) for layer in model.layers)
    return list(dict.fromkeys(name[1] for name in found if name))
