"""Fixtures for all tests: small sets of real images, and the program as a subprocess.

TensorFlow is imported inside the functions that use it, so that other tests start fast.
"""

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from convoy.utils.machine import device
from convoy.utils.machine.garbage import without_garbage_collection
from tests import records
from tests.processes import ROOT, Convoy

# These must be set before TensorFlow is imported: less output, and the CPU only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
device.prefer_onednn()
# A script's background jobs (`&`) ignore SIGINT, and processes started by the tests would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collects tests with less processor time: 400 modules, and TensorFlow as the program loads it.

    With pytest-xdist every worker collects all tests.
    """
    with without_garbage_collection():
        if "PYTEST_XDIST_WORKER" in os.environ:
            device.import_tensorflow()
        collected = yield
    gc.freeze()  # the collector need not search the tests and TensorFlow again and again
    return collected


def pytest_collection_modifyitems(items):
    """Runs the integration tests first: a long test at the end would leave a worker idle."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(autouse=True)
def _fresh_loggers():
    """Resets Convoy's loggers to the state of a new process.

    After `setup_logging` in an earlier test, caplog would see more records (because of the level)
    or none (because of `propagate`).
    """
    for name in [n for n in logging.root.manager.loggerDict if n.split(".")[0] == "convoy"]:
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
        logger.handlers.clear()


@pytest.fixture
def keras_policy():
    """Restores Keras' dtype policy, which is global, after a test."""
    import keras

    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="session")
def convoy(tmp_path_factory):
    """Runs the program: `convoy("--mode", "eval", …, np=2)`."""
    program = Convoy(tmp_path_factory.mktemp("output"), tmp_path_factory.mktemp("cache"))
    yield program
    for running in program.started:
        if running.process.poll() is None:
            running.end()


@pytest.fixture
def script(tmp_path):
    """Writes Python text to a file and returns its path, for `convoy(script=…)`.

    With `quickly`, it first loads TensorFlow as the program does, which takes two thirds of the
    time.
    """
    load = "from convoy.utils.machine import device\ndevice.import_tensorflow()\n"

    def write(text, name="script.py", quickly=False):
        path = tmp_path / name
        path.write_text(load * quickly + text)
        return path

    return write


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a real file system of 1 MB; needs root."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


# ---- images -------------------------------------------------------------------------------------


def jpeg_bytes(pixels, **options):
    """Encodes uint8 pixels `(H, W)` or `(H, W, 3)` as JPEG."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **({"quality": 90} | options))
    return stream.getvalue()


def handwritten(count):
    """Returns scikit-learn's first `count` digits, enlarged: a list of (uint8 (40, 40, 3), 0-9)."""
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    grey = (images[:count].reshape(-1, 8, 8) * 15.9375).astype(np.uint8)
    large = grey.repeat(5, axis=1).repeat(5, axis=2)[..., None].repeat(3, axis=3)
    return [(image, int(label)) for image, label in zip(large, labels, strict=False)]


def write_records(path, examples, first_label=1):
    """Writes pairs (encoded bytes or pixels, zero-based class) to a TFRecord file in ImageNet's
    layout.
    """
    payloads = []
    for image, label in examples:
        encoded = image if isinstance(image, bytes) else jpeg_bytes(image)
        features = {"image/encoded": encoded, "image/class/label": label + first_label}
        payloads.append(records.example(features))
    records.write(path, payloads)


def write_dataset(folder, train, validation, names=range(10), shards=2):
    """Writes `train-*` and `validation-*` shards and labels.txt; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, examples in (("train", train), ("validation", validation)):
        for i in range(shards if examples else 0):
            path = folder / f"{split}-{i:05d}-of-{shards:05d}"
            write_records(path, examples[i::shards])
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


@pytest.fixture(scope="session")
def writers():
    """The functions that write images and records, for tests that make their own data."""

    class Writers:
        jpeg = staticmethod(jpeg_bytes)
        digits = staticmethod(handwritten)
        records = staticmethod(write_records)
        dataset = staticmethod(write_dataset)

    return Writers


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """97 training and 53 validation digits, in two shards each; both numbers are prime."""
    examples = handwritten(150)
    return write_dataset(tmp_path_factory.mktemp("tiny"), examples[:97], examples[97:])


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 12 JPEGs whose names begin with their class: `0-7.jpg` and so on."""
    folder = tmp_path_factory.mktemp("photos")
    for i, (pixels, label) in enumerate(handwritten(12)):
        (folder / f"{label}-{i}.jpg").write_bytes(jpeg_bytes(pixels))
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A data_dir of class folders with one image each, which passes the checks before training."""
    from PIL import Image

    root = tmp_path_factory.mktemp("folders")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(root / split / name / "1.jpg")
    return root


@dataclass
class Digits:
    """The demo's data: `data_dir` of records, and the folder `images` of JPEGs."""

    data_dir: Path
    images: Path


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The 1,797 digits, prepared by the command that the demo uses."""
    folder = tmp_path_factory.mktemp("digits")
    data_dir, images = folder / "records", folder / "images"
    command = [sys.executable, "-m", "dataloader.prepare", "digits", "--out", str(data_dir)]
    command += ["--image_size", "48", "--images", str(images)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=240)
    return Digits(data_dir, images)


# ---- runs ---------------------------------------------------------------------------------------

TRAIN = (
    *("--arch", "efficientnet-test", "--train_batch_size", "16", "--eval_batch_size", "16"),
    # Tracing AutoAugment takes five seconds per process; only the tests of it switch it on.
    *("--lr_init", "0.05", "--log_steps", "1", "--augmenter_name", "none"),
    *("--defaults", "documents"),  # defaults that fit the data have tests of their own
    "--no-training_report",  # saves a few seconds per run
)


@pytest.fixture(scope="session")
def small_run():
    """Flags of a small training run; a test adds the folders and the number of epochs."""
    return TRAIN


@pytest.fixture(scope="session")
def trained(convoy, tiny, tmp_path_factory):
    """A run of two epochs on `tiny` with an EMA: `model_dir`, `flags`, and its output (`text`)."""
    model_dir = tmp_path_factory.mktemp("trained") / "run"
    flags = (*TRAIN, "--max_epochs", "2", "--warmup_epochs", "1", "--moving_average_decay", "0.9")
    done = convoy(*flags, "--data_dir", tiny, "--model_dir", model_dir)

    @dataclass
    class Trained:
        model_dir: Path
        flags: tuple
        text: str

    return Trained(model_dir, (*flags, "--data_dir", str(tiny)), done.text)


def read_log(path):
    """Returns the `DLLL {…}` lines of a log as dictionaries."""
    lines = Path(path).read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


@pytest.fixture(scope="session")
def log_lines():
    """Reads a log.json; see `read_log`."""
    return read_log


@pytest.fixture
def interrupt():
    """A function that sends SIGINT (Ctrl-C) to a process."""
    return lambda pid: os.kill(pid, signal.SIGINT)
