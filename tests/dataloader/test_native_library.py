"""The C++ operations refuse invalid input, and the pipeline also works without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader import native
from convoy.dataloader.augment import augmenter
from convoy.dataloader.images.resizing import resize

pytestmark = pytest.mark.usefixtures("native_ops")

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "g++")

# ---- invalid input -------------------------------------------------------------------------------

GOOD = {
    "image": np.zeros((4, 5, 3), np.uint8),
    "ops": np.zeros(2, np.int32),
    "arguments": np.zeros(2, np.float64),
    "centres": np.zeros((2, 2), np.float32),
    "names": ["Rotate", "Twirl"],
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": np.zeros((4, 5, 4), np.uint8)}, "the image has the wrong shape"),
        ({"image": np.zeros((4, 5), np.uint8)}, "the image has the wrong shape"),
        ({"image": np.zeros((1, 4, 5, 3), np.uint8)}, "the image has the wrong shape"),
        ({"ops": np.int32(0)}, "ops has the wrong shape"),
        ({"ops": np.zeros(3, np.int32)}, "arguments has the wrong shape"),
        ({"arguments": np.zeros(1)}, "arguments has the wrong shape"),
        ({"centres": np.zeros((2, 3), np.float32)}, "centres has the wrong shape"),
        ({"centres": np.zeros(4, np.float32)}, "centres has the wrong shape"),
        ({"ops": np.array([0, 2], np.int32)}, "no augmentation number 2"),
        ({"ops": np.array([-1, 0], np.int32)}, "no augmentation number -1"),
        ({"ops": np.array([0, 1], np.int32)}, "does not know"),
        ({"names": []}, "no augmentation number 0"),
        ({"arguments": np.array([0, np.nan])}, "must be finite"),
        ({"arguments": np.array([np.inf, 0])}, "must be finite"),
        ({"centres": np.full((2, 2), np.nan, np.float32)}, "must be finite"),
        ({"image": tf.zeros((4, 5, 3))}, "expected to be a uint8 tensor"),
        ({"ops": tf.zeros(2, tf.int64)}, "expected to be a int32 tensor"),
    ],
)
def test_invalid_input_of_augment_is_refused(native_ops, wrong, message):
    native_ops.convoy_augment(**GOOD)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        native_ops.convoy_augment(**GOOD | wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 5), np.uint8), [2, 2], False), "the image has the wrong shape"),
        ((np.zeros((0, 5, 3), np.uint8), [2, 2], False), "at least one pixel"),
        ((np.zeros((4, 5, 3), np.uint8), [2, 2, 2], False), "the size has the wrong shape"),
        ((np.zeros((4, 5, 3), np.uint8), [2, -2], False), "negative or too large"),
        ((np.zeros((4, 5, 3), np.uint8), [2**20, 2**20], False), "negative or too large"),
        ((np.zeros((4, 5, 3), np.uint8), [2, 0], False), "at least one pixel"),
        ((np.zeros((4, 5, 3), np.uint8), [2, 2], [False]), "flip has the wrong shape"),
    ],
)
def test_invalid_input_of_resize_is_refused(native_ops, arguments, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        native_ops.convoy_resize(*arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": [5, 0]}, "at least one pixel"),
        ({"shape": [5, -7]}, "at least one pixel"),
        ({"shape": [5]}, "the shape has the wrong shape"),
        ({"areas": [[0.5]]}, "areas has the wrong shape"),
        ({"stretch": [[1.0, 1.0]]}, "stretch has the wrong shape"),
        ({"places": [[0.5], [np.nan]]}, "crops need numbers"),
        ({"limits": [1.0]}, "limits has the wrong shape"),
    ],
)
def test_invalid_input_of_crop_window_is_refused(native_ops, wrong, message):
    good = {
        "shape": [40, 50],
        "areas": [0.5],
        "stretch": [[1.0], [1.0]],
        "places": [[0.5], [0.5]],
        "limits": [1.3, 1.3],
    }
    assert native_ops.convoy_crop_window(**good).numpy().tolist() == [4, 9, 32, 32]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        native_ops.convoy_crop_window(**good | wrong)


def test_an_image_without_pixels_keeps_its_shape(native_ops):
    image = np.zeros((0, 5, 3), np.uint8)
    assert native_ops.convoy_augment(**GOOD | {"image": image}).shape == (0, 5, 3)


def build_fuzzer(folder):
    if not shutil.which(COMPILER):
        pytest.skip("no C++ compiler")
    sources = [path for path in native.FOLDER.glob("*.cc") if path.name != "ops.cc"]
    command = [COMPILER, "-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra"]
    command += ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    command += ["-I", native.FOLDER, ROOT / "tests" / "native" / "fuzz.cc"]
    built = subprocess.run(
        [*command, *sources, "-o", folder / "fuzz"], capture_output=True, text=True
    )
    if "cannot find" in built.stderr and "asan" in built.stderr:
        pytest.skip("the compiler comes without the address sanitizer")
    assert built.returncode == 0, built.stderr
    return folder / "fuzz"


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [(3000, 1), pytest.param(300_000, 2, marks=pytest.mark.slow)],
)
def test_random_input_causes_no_error_under_sanitizers(tmp_path, rounds, seed):
    fuzz = build_fuzzer(tmp_path)
    done = subprocess.run([fuzz, str(rounds), str(seed)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{rounds} rounds without an error\n"


# ---- with and without the library ----------------------------------------------------------------


def kinds_of_operations(function, *arguments):
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    return {op.type for op in graph.get_operations()}


def test_native_operations_are_used_unless_disabled_or_one_is_missing(monkeypatch):
    image = tf.zeros([8, 9, 3], tf.uint8)
    choice = augmenter.Choice(tf.constant([2]), tf.constant([0.0], tf.float64), tf.zeros([1, 2]))
    assert "ConvoyAugment" in kinds_of_operations(augmenter.apply_choice, image, choice)
    with native.disabled():
        kinds = kinds_of_operations(augmenter.apply_choice, image, choice)
    assert not any(kind.startswith("Convoy") for kind in kinds)
    # If the C++ lacks one operation, TensorFlow does them all.
    monkeypatch.setattr(native, "AUGMENT_OPS", native.AUGMENT_OPS - {"Cutout"})
    kinds = kinds_of_operations(augmenter.apply_choice, image, choice)
    assert "ConvoyAugment" not in kinds


@pytest.mark.parametrize("library", ["missing", "damaged"])
def test_without_the_library_tensorflow_is_used(tmp_path, monkeypatch, library):
    path = tmp_path / "convoy.so"
    if library == "damaged":
        path.write_bytes(b"not a library")
    monkeypatch.setattr(native.LIBRARY, "path", lambda: path)
    native.LIBRARY.forget()
    try:
        assert native.load() is None
        state = "not built" if library == "missing" else "cannot be loaded"
        assert native.status().startswith(state)
        assert resize(np.zeros((3, 4, 3), np.uint8), [5, 6], flip=tf.constant(True)).shape[1] == 6
    finally:
        native.LIBRARY.forget()


def test_mode_env_reports_the_native_operations():
    from convoy.runtime.describe import environment

    assert environment.gather()["native input operations"] == "in use"


def test_the_librarys_name_depends_on_its_sources(tmp_path, monkeypatch):
    for source in (*native.FOLDER.glob("*.cc"), *native.FOLDER.glob("*.h")):
        shutil.copy(source, tmp_path)
    before = native.LIBRARY.path().name
    monkeypatch.setattr(native.LIBRARY, "folder", tmp_path)
    assert native.LIBRARY.path().name == before
    with (tmp_path / "kernels.h").open("a") as header:
        header.write("// changed\n")
    assert native.LIBRARY.path().name != before


def test_a_failed_build_keeps_the_old_library():
    library = native.LIBRARY.path()
    command = [ROOT / "scripts" / "build_native.sh"]
    environ = os.environ | {"CXX": sys.executable}  # answers --version, but compiles nothing
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode != 0
    assert library.exists()
    assert not list(native.FOLDER.glob("build.*"))


# ---- output of libraries -------------------------------------------------------------------------

BROKEN = """
import ctypes, sys
import numpy as np
from convoy.utils.machine import device
device.quiet()
device.import_tensorflow()  # without TensorFlow's own start-up lines
import tensorflow as tf
from tests.dataloader.mutations import images, mutate

if sys.argv[1] == "hushed":
    from convoy.dataloader.images.decoders import decode_image
else:
    decode_image = tf.io.decode_image
rng = np.random.default_rng(3)
bases = images(rng)
for _ in range(300):
    data = mutate(bases[rng.integers(len(bases))], rng)
    try:
        decode_image(tf.constant(data))
    except (tf.errors.OpError, UnicodeDecodeError):
        pass
libc = ctypes.CDLL(None)
libc.fprintf(ctypes.c_void_p.in_dll(libc, "stderr"), b"%s: %d%%\\n", b"another library's", 5)
libc.perror(b"and this")
sys.stderr.write("and Python's\\n")
"""


@pytest.mark.parametrize("how", ["hushed", pytest.param("alone", marks=pytest.mark.slow)])
def test_decoders_messages_without_a_file_name_are_kept_off_stderr(script, how):
    """All other lines pass unchanged."""
    command = [sys.executable, str(script(BROKEN)), how]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-3:] == ["another library's: 5%", "and this: Success", "and Python's"]
    assert (len(lines) == 3) == (how == "hushed"), lines
