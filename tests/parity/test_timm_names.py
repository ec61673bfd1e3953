"""Options read from timm's names, and which of its networks are accepted as ours."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from convoy.model.arithmetic import weight_shapes
from convoy.model.catalog import get_arch, list_archs
from convoy.model.weights.files import WeightFile
from convoy.model.weights.fit import fit, se_ratio
from convoy.model.weights.names import recognise
from convoy.model.weights.suggest import suggest

OURS = [get_arch(name) for name in list_archs() if get_arch(name).available]
DEFAULT = {"mean": [255 * v for v in (0.485, 0.456, 0.406)],
           "std": [255 * v for v in (0.229, 0.224, 0.225)]}  # fmt: skip


@pytest.fixture(scope="module")
def tensors(torch, timm):
    """Files without data of all timm networks whose tensors fit one of ours, by name."""

    def file(name):
        with contextlib.suppress(Exception), torch.device("meta"):
            state = timm.create_model(name).state_dict()
            counter = "num_batches_tracked"
            arrays = {k: np.broadcast_to(np.float32(0), tuple(v.shape)) for k, v in state.items()
                      if not k.endswith(counter)}  # fmt: skip
            return WeightFile(Path(f"{name}.pth"), "torch", "raw", arrays)

    found = {}
    modules = ("efficientnet", "resnet", "mobilenetv3", "byobnet", "regnet", "senet", "sknet")
    for name in [name for module in modules for name in timm.list_models(module=module)]:
        given = file(name)
        scheme = recognise(given.arrays) if given else None
        for arch in OURS if scheme else ():
            shapes = weight_shapes(arch, 1000, se_ratio(given.arrays))
            if arch.family == scheme.family and fit(given, scheme, arch.family, shapes).whole:
                found[name] = (arch, given)
    return found


def test_no_other_network_is_accepted_as_one_of_ours(tensors):
    def plain(name):
        return name.replace("tf_", "").replace("_", "").replace("-", "")

    strangers = {"resnetaa50", "resnetblur18", "resnetblur50", "efficientnet_blur_b0"}
    strangers |= {"resnetaa34d", "resnetaa50d", "resnetaa101d", "resnetblur50d", "resnetblur101d"}
    for name, (arch, file) in tensors.items():
        if name in strangers:
            assert suggest(file, arch)[1].stranger
        else:
            assert plain(name) == plain(arch.name)
            assert not suggest(file, arch)[1].stranger
    assert strangers <= tensors.keys()
    assert len(tensors) > 30


@pytest.mark.parametrize("place", ["{}/model.safetensors", "models--timm--{}/snapshots/ab12/x.bin"])
def test_mean_and_std_from_a_files_name_equal_timms(place, timm, tensors):
    """Files are named as on the hub or in its cache, without a config.json."""
    judged, half = 0, 0
    for name in timm.list_models(pretrained=True):
        if (base := name.split(".")[0]) not in tensors:
            continue
        arch, file = tensors[base]
        settings = timm.models.get_pretrained_cfg(name)
        files = [Path(place.format(name))]
        if settings.url:
            files.append(Path(settings.url.rsplit("/", 1)[-1]))
        for path in files:
            there = WeightFile(path, "torch", "raw", file.arrays)
            arguments = DEFAULT | suggest(there, arch)[1].arguments
            expected = [255 * v for v in settings.mean], [255 * v for v in settings.std]
            assert (arguments["mean"], arguments["std"]) == expected, path
            if "efficientnet" in base:
                same = base.startswith("tf_")
                assert arguments["padding"] == ("same" if same else "symmetric"), path
            judged, half = judged + 1, half + (expected[0][0] == 127.5)
    assert judged > 150
    assert half > 15
