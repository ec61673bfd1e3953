"""PyTorch's models beside ours in one process. Needs the extra `parity`, in a venv of its own:

    python3 -m venv .venv-parity
    .venv-parity/bin/pip install -c constraints.txt -e '.[cpu,dev,parity]'
    .venv-parity/bin/python -m pytest tests/parity

Where the extra is missing, all of this folder is skipped.
"""

import importlib.util
import warnings

import numpy as np
import pytest

OPERATORS = (
    *("nms", "qnms", "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward"),
    *("roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward", "qroi_align"),
    *("deform_conv2d", "_deform_conv2d_backward"),
)


def _import_quietly(name):
    """Imports a package whose own deprecation warnings are no business of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: see tests/parity")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, with torchvision's detection operators declared.

    A torchvision built for another PyTorch cannot load them, and then does not import at all;
    classification needs none.
    """
    torch = _import_quietly("torch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchvision  # noqa: F401
    except (RuntimeError, ImportError):
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed: see tests/parity")
        library = torch.library.Library("torchvision", "DEF")
        for name in OPERATORS:
            library.define(f"{name}(Tensor input) -> Tensor")
        torch._convoy_library = library  # it ends with its Python object
        import sys

        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _import_quietly("torchvision")
    torch.set_num_threads(2)
    return torch


@pytest.fixture(scope="session")
def timm(torch):
    return _import_quietly("timm")


@pytest.fixture(scope="session")
def torchvision(torch):
    return _import_quietly("torchvision")


@pytest.fixture(scope="session")
def transformers(torch):
    return _import_quietly("transformers")


def patches(size, count, seed=0):
    """Images of coloured patches under noise, uint8 (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    index = np.arange(size) * 4 // size
    coarse = rng.integers(0, 256, (count, 4, 4, 3))[:, index][:, :, index]
    noise = rng.integers(-64, 65, (count, size, size, 3))
    return np.clip(coarse + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures():
    """`pictures(size)`: uint8 (16, size, size, 3), half of them drawn, half cut from photos."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    def make(size):
        crops = []
        for name in ("china.jpg", "flower.jpg"):
            photo = Image.fromarray(load_sample_image(name))
            for left, top in ((0, 0), (213, 0), (0, 107), (213, 107)):
                crop = photo.crop((left, top, left + 320, top + 320))
                crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)))
        return np.concatenate([patches(size, 8), np.stack(crops)])

    return make


@pytest.fixture
def randomise(torch):
    """Gives a model of PyTorch's weights among which no mistake hides.

    Kernels keep the size of what they pass on, gammas, betas and biases are drawn, and the
    statistics are those of a batch: drawn freely, or with a program's own first kernels, they make
    deep models shrink their input away, so that any two agree.
    """

    def apply(model, batch, seed=0):
        generator = torch.Generator().manual_seed(seed)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 4:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
                if parameter.ndim == 1 or name.endswith("bias"):
                    noise = torch.rand(parameter.shape, generator=generator)
                    parameter.add_(0.8 * noise - 0.4)
            kept = [norm.momentum for norm in norms]
            for norm in norms:
                norm.momentum = 1.0
            model.train()
            model(batch)
            for norm, momentum in zip(norms, kept, strict=True):
                norm.momentum = momentum
        return model.eval()

    return apply


@pytest.fixture
def to_torch(torch):
    """Images as PyTorch's models want them: (n, 3, size, size), normalised by mean and std."""

    def convert(images, mean, std):
        x = (images.astype(np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    return convert
