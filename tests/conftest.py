"""Fixtures for all tests: small sets of real images, and the program as a subprocess.

TensorFlow is imported inside the functions that use it, so that other tests start fast.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest

from convoy.utils.machine import device
from convoy.utils.machine.garbage import without_garbage_collection
from tests import records

# These must be set before TensorFlow is imported: less output, and the CPU only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
device.prefer_onednn()
# A script's background jobs (`&`) ignore SIGINT, and processes started by the tests would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
HOROVODRUN = Path(sys.executable).with_name("horovodrun")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collects tests with less processor time: 400 modules, and TensorFlow as the program loads it.

    With pytest-xdist every worker collects all tests.
    """
    with without_garbage_collection():
        if "PYTEST_XDIST_WORKER" in os.environ:
            device.import_tensorflow()
        return (yield)


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


@dataclass
class Finished:
    """The exit code, standard output and standard error of a finished process."""

    code: int
    out: str
    err: str

    @property
    def text(self):
        """Both outputs: horovodrun sends the errors of some ranks to either one."""
        return self.out + self.err


@dataclass
class Running:
    """A started process whose output goes to files, so that it can be read while it runs."""

    process: subprocess.Popen
    out: Path
    err: Path

    @property
    def text(self):
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def children(self):
        """All descendants of this process: horovodrun's helpers and the ranks."""
        import psutil

        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ranks(self, name="main.py"):
        """Returns the Python processes under horovodrun that run main.py or another script,
        ordered by rank.
        """
        found = {}
        for child in self.children():
            rank = child.environ().get("HOROVOD_RANK")
            if rank is not None and child.cmdline()[1:2] and child.cmdline()[1].endswith(name):
                found[int(rank)] = child
        return [found[rank] for rank in sorted(found)]

    def wait_for(self, text, timeout=120):
        """Waits until the output contains `text`; fails if the process ends or times out first."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if text in self.text:
                return
            if self.process.poll() is not None and text not in self.text:
                pytest.fail(f"ended ({self.process.returncode}) without {text!r}:\n{self.text}")
            time.sleep(0.02)
        self.end()
        pytest.fail(f"no {text!r} within {timeout} s:\n{self.text}")

    def finish(self, timeout=120):
        """Waits for the process to end; kills it and fails the test after `timeout` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            pytest.fail(f"still running after {timeout} s:\n{self.text}")
        return Finished(
            self.process.returncode,
            self.out.read_text(errors="replace"),
            self.err.read_text(errors="replace"),
        )

    def end(self):
        """Kills the process and all its descendants."""
        import psutil

        everyone = self.children()
        self.process.kill()
        for child in everyone:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait(10)


@dataclass
class Convoy:
    """Starts `python main.py …`, or another script, alone or under horovodrun."""

    folder: Path
    cache: Path
    started: list = field(default_factory=list)

    def start(self, *args, np=1, env=None, script="main.py", elastic=None):
        """Starts the program and returns a `Running`.

        With `np` above 1 or the flags `elastic` it starts through horovodrun.
        """
        number = len(self.started)
        command = [sys.executable, str(script), *map(str, args)]
        if elastic:
            command = [str(HOROVODRUN), "--gloo", *map(str, elastic), *command]
        elif np > 1:
            command = [str(HOROVODRUN), "--gloo", "-np", str(np), "-H", f"localhost:{np}", *command]
        settings = os.environ | {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(self.cache),
        }
        out, err = (self.folder / f"{number}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=settings | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
            )
        running = Running(process, out, err)
        self.started.append(running)
        return running

    def __call__(self, *args, np=1, env=None, script="main.py", timeout=240, code=0):
        """Runs the program to its end, checks the exit code (None: any), returns a `Finished`."""
        done = self.start(*args, np=np, env=env, script=script).finish(timeout)
        if code is not None:
            assert done.code == code, done.text
        return done


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
