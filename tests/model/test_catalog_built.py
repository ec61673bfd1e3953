"""The catalogue's arithmetic against every built model."""

import math
import sys

import keras
import pytest

from convoy.model import arithmetic, build_model, get_arch, list_archs
from convoy.model.summary import flops
from tests.parameter_count import parameter_count

QUICK = (
    "efficientnet-test",
    "efficientnet-b0",
    "resnet18",
    "resnet50",
)
AVAILABLE = [name for name in list_archs() if get_arch(name).available]


def counted(model):
    """Counts multiply-adds from the sizes of each layer's kernel, input and output."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            total += math.prod((*layer.kernel_size, *layer.output.shape[1:]))
        elif isinstance(layer, keras.layers.Conv2D):
            each = math.prod(layer.kernel_size) * layer.input.shape[-1] // layer.groups
            total += each * math.prod(layer.output.shape[1:])
        elif isinstance(layer, keras.layers.Dense):
            total += layer.input.shape[-1] * layer.output.shape[-1]
        else:  # no other layer has a kernel
            assert not any(v.name == "kernel" for v in layer.weights), layer.name
    return total


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in AVAILABLE]
)
def test_counts_and_shapes_of_a_built_model_equal_the_catalogues(name):
    keras.backend.clear_session()  # the largest models take gigabytes
    arch = get_arch(name)
    model = build_model(name)
    assert model.name == name.replace("-", "_")
    assert model.input_shape == (None, arch.resolution, arch.resolution, 3)
    assert model.output_shape == (None, 1000)
    assert model.count_params() == arch.params_1000 == parameter_count(arch)
    trainable = sum(math.prod(v.shape) for v in model.trainable_variables)
    assert trainable == arch.trainable_1000
    assert counted(model) == arithmetic.macs(arch) == flops(model)
    built = {v.path: tuple(v.shape) for v in model.weights}
    assert built == arithmetic.weight_shapes(arch)


@pytest.mark.parametrize("name", ["efficientnet-test", "resnet18"])
def test_counts_are_right_at_another_size_and_number_of_classes(name):
    arch = get_arch(name)
    # Odd sizes are rounded up at every stage.
    model = build_model(name, num_classes=7, image_size=45)
    assert model.count_params() == parameter_count(arch, 7)
    assert counted(model) == arithmetic.macs(arch, 45, 7) == flops(model)


def test_python_allows_the_calls_that_keras_makes_for_the_deepest_model():
    """Keras 3.15 and 3.5 make one for each of its 2,101 layers; Python's usual limit is 1,000."""
    assert sys.getrecursionlimit() > 2 * 2101


@pytest.mark.slow
def test_a_chain_as_long_as_the_deepest_models_can_be_built_and_loaded(tmp_path):
    image = chain = keras.Input((1,))
    for _ in range(2101):  # ResNet-RS 420 has as many in a row
        chain = keras.layers.Identity()(chain)
    keras.Model(image, chain).save(tmp_path / "deep.keras")
    assert len(keras.models.load_model(tmp_path / "deep.keras").layers) == 2102
