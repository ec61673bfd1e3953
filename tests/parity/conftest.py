"""Compares models with PyTorch's. `make test-parity` makes a virtual environment and runs it.

Each comparison starts from a file that the other program wrote and adds a row to the table at the
end of the output. Without the extra `parity` this folder is skipped.
"""

import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.contenders.pytorch import import_torch

COUNT = 8  # images per batch
QUIET = 0.2  # factor for the last gamma of a residual branch
# All blocks of a stage except the first, which has no residual branch, in any program's names.
BRANCH = re.compile(
    r"((blocks|features|layers)\.\d+|layer\d+|stages\.\d+\.layers)\.(block)?[1-9]\d*(?=\.)"
)


def _import_quietly(name):
    """Imports a package without its deprecation warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: see tests/parity")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, which must be imported before torchvision."""
    try:
        torch = import_torch()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed: see tests/parity")
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


@pytest.fixture(scope="session")
def efficientnet_pytorch(torch):
    return _import_quietly("efficientnet_pytorch")


@pytest.fixture(scope="session")
def efficientnet_lite_pytorch(torch):
    return _import_quietly("efficientnet_lite_pytorch")


def patches(size, count, seed=0):
    """Returns images of coloured patches with noise, uint8 (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    index = np.arange(size) * 4 // size
    coarse = rng.integers(0, 256, (count, 4, 4, 3))[:, index][:, :, index]
    noise = rng.integers(-64, 65, (count, size, size, 3))
    return np.clip(coarse + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures():
    """`pictures(size)`: uint8 (COUNT, size, size, 3), half synthetic, half from two photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    def make(size):
        crops = []
        for name in ("china.jpg", "flower.jpg"):
            photo = Image.fromarray(load_sample_image(name))
            for left, top in ((0, 0), (213, 107)):
                crop = photo.crop((left, top, left + 320, top + 320))
                crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)))
        return np.concatenate([patches(size, COUNT - len(crops)), np.stack(crops)])

    return make


@pytest.fixture
def randomise(torch, to_torch):
    """A function that sets a PyTorch model's weights and statistics so that every mistake shows.

    Kernels keep the scale of their input; gammas, betas and biases are random. Each norm's
    statistics are drawn around those of its input for images that no comparison uses: random ones
    would make deep models shrink their input, so that any two agree. Residual branches are scaled
    down, as after training: otherwise B7 amplifies a disturbance, and so rounding, 10⁵ times (now
    10 times).
    """

    def apply(model, size, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def noise(like):
            return 2 * torch.rand(like.shape, generator=generator) - 1

        def draw(norm, inputs):
            variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
            norm.running_mean.copy_(mean + 0.3 * variance.sqrt() * noise(mean))
            norm.running_var.copy_(variance * (0.4 * noise(variance)).exp())

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 4:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
                if parameter.ndim == 1 or name.endswith("bias"):
                    parameter.add_(0.4 * noise(parameter))
            norms = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
            for norm in norms.values():  # timm initialises some with 0
                norm.weight.copy_(1 + 0.4 * noise(norm.weight))
            last = {n[: m.end()]: norms[n] for n in norms if (m := BRANCH.search(n))}
            for norm in last.values():
                norm.weight.mul_(QUIET)
            hooks = [norm.register_forward_pre_hook(draw) for norm in norms.values()]
            model.eval()(to_torch(patches(size, COUNT, seed=1)))
            for hook in hooks:
                hook.remove()

    return apply


@pytest.fixture(scope="session")
def to_torch(torch):
    """A function that converts images to (n, 3, size, size), normalised by mean and std."""
    from convoy.model.catalog import IMAGENET_MEAN, IMAGENET_STD

    def convert(images, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        x = (images.astype(np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    return convert


@dataclass
class Answers:
    """A model's results for one batch.

    Attributes:
        logits: logits in inference mode.
        training: logits in training mode.
        before: running statistics before the training step, by name.
        after: running statistics after it.
        float32: logits of the model in float32.
    """

    logits: np.ndarray
    training: np.ndarray
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    float32: np.ndarray


def _ask_theirs(torch, model, x, forward):
    """Runs their model in float64, so that only our rounding is measured."""

    def statistics():
        return {k: v.numpy().copy() for k, v in model.state_dict().items() if ".running_" in k}

    with torch.no_grad():
        single = forward(x).numpy()
        model.double()
        logits = forward(x.double()).numpy()
        before = statistics()
        model.train()
        training = forward(x.double()).numpy()
    return Answers(logits, training, before, statistics(), single)


def _ask_ours(model, images, names):
    def statistics():
        return {names[v.path]: np.asarray(v).copy() for v in model.weights if "/moving_" in v.path}

    logits, before = np.asarray(model(images, training=False)), statistics()
    training = np.asarray(model(images, training=True))
    return Answers(logits, training, before, statistics(), logits)


def relative(ours, theirs):
    """Returns the largest difference relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def batch_statistics(answers, name, momentum):
    """Returns the statistic that the step used, if `momentum` (as in Keras) is its own."""
    before, after = (np.float64(side[name]) for side in (answers.before, answers.after))
    return before + (after - before) / (1 - momentum)


@pytest.fixture
def compare(torch, randomise, to_torch, pictures, tmp_path, record_property):
    """`compare(theirs, arch, partner, filename)` moves weights by a file and compares results.

    `theirs` is a PyTorch model. `forward` calls a model whose output is not a tensor; `wrap` makes
    the file's content from a state dict.

    Of the running statistics only the batch's part is compared; in the sum it would hardly count.
    """
    import keras

    from convoy.model import build_model
    from convoy.model.weights import inspect, load_pretrained
    from convoy.model.weights.names import recognise, source_names

    def check(theirs, arch, partner, filename, size=96, forward=None, wrap=dict):
        randomise(theirs, size)
        path = tmp_path / filename
        torch.save(wrap(theirs.state_dict()), path)
        names = list(theirs.state_dict())
        hint = inspect(path, arch)
        x = to_torch(images := pictures(size), *_normalisation(hint, arch))
        momentum = 1 - next(m.momentum for m in theirs.modules() if hasattr(m, "running_var"))
        expected = _ask_theirs(torch, theirs, x, forward or theirs)
        del theirs, forward

        keras.backend.clear_session()
        options = {"dropout": 0.0, "stochastic_depth": 0.0, **hint.arguments}
        classes = expected.logits.shape[-1]
        ours = build_model(arch, num_classes=classes, image_size=size, **options)
        report = load_pretrained(ours, arch, path, strict=True)
        path.unlink()
        assert not report.warnings
        assert not report.head_replaced
        theirs_of = source_names([v.path for v in ours.weights], recognise(names))
        found = _ask_ours(ours, images, theirs_of)

        # Images and statistics must matter: two constants would agree, too.
        spread = expected.logits.std(axis=0).mean() / np.abs(expected.logits).max()
        assert spread > 0.01
        assert relative(expected.training, expected.logits) > 0.01
        assert found.after.keys() == expected.after.keys()
        each = [
            relative(*(batch_statistics(side, k, momentum) for side in (found, expected)))
            for k in expected.after
        ]
        row = {
            "ours": arch,
            "theirs": partner,
            "px": size,
            "logits": relative(found.logits, expected.logits),
            "their float32": relative(expected.float32, expected.logits),
            "training logits": relative(found.training, expected.training),
            "statistics": max(each),
        }
        record_property("parity", row)
        print(row)
        # Running statistics that do not fit a batch let the largest networks amplify rounding, so
        # that PyTorch's own float32 is further than 1e-4 from its float64 (L2: 5.4e-4).
        assert row["logits"] < max(1e-4, row["their float32"])
        assert row["training logits"] < 1e-4
        assert row["statistics"] < 1e-4

    return check


def _normalisation(hint, arch):
    from convoy.model import get_arch

    entry = get_arch(arch)
    return hint.arguments.get("mean", entry.mean), hint.arguments.get("std", entry.std)


def pytest_terminal_summary(terminalreporter):
    """Prints the tables of docs/models.md and docs/evaluate.md."""
    done = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for kind in ("parity", "files", "pixels"):
        rows = [v for report in done for k, v in report.user_properties if k == kind]
        if rows:
            terminalreporter.section("what was compared: largest relative differences")
            terminalreporter.write_line(f"| {' | '.join(rows[0])} |")
            terminalreporter.write_line("|---" * len(rows[0]) + "|")
        for row in sorted(rows, key=lambda row: [*row.values()][:2]):
            cells = (f"{v:.1e}" if isinstance(v, float) else str(v) for v in row.values())
            terminalreporter.write_line(f"| {' | '.join(cells)} |")
