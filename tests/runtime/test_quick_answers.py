"""Help, lists and errors do not load TensorFlow, so they are quick."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.loaded_modules import run_and_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["--mode", "list"], 0),
        (["--mode", "list", "--pattern", "resnet*"], 0),
        (["--recipe", "resnet5/A100"], 2),
        (["--max_epochs", "0"], 2),
        (["--data_dir", "nowhere"], 2),
        (["--mode", "eval", "--model_dir", "nowhere", "--data_dir", "FOLDERS"], 2),
        (["--mode", "predict", "--model_dir", "nowhere", "--predict_dir", "FOLDERS"], 2),
        (["--arch", "efficientnet-test", "--image_size", "3", "--data_dir", "FOLDERS"], 2),
        # Settings are chosen by the size of the images, which must be read without TensorFlow.
        (["--arch", "efficientnet-test", "--data_dir", "FOLDERS", "--print_config"], 0),
        (["--arch", "efficientnet-test", "--data_dir", "RECORDS", "--print_config"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_help_lists_errors_and_print_config_do_not_load_tensorflow(args, code, folders, tiny):
    places = {"FOLDERS": str(folders), "RECORDS": str(tiny)}
    args = [places.get(arg, arg) for arg in args]
    done = run_and_report(*args)
    assert done.stdout.splitlines()[-1] == f"code {code} loaded []", done.stderr


def test_no_start_compiles_the_modules_of_tensorflow():
    """Where Python may not write bytecode, each start would take 10 s more; set-up writes it."""
    origin = importlib.util.find_spec("tensorflow").origin
    package = Path(origin).parent / "python" / "framework" / "ops.py"
    assert Path(importlib.util.cache_from_source(str(package))).is_file()


@pytest.mark.slow
def test_keras_is_imported_without_what_it_does_not_need_and_that_stays_importable():
    code = (
        "import gc, sys; from convoy.utils.machine import device; device.import_tensorflow()\n"
        "assert 'keras' in sys.modules and gc.isenabled()\n"
        "assert not {'sklearn', 'scipy', 'matplotlib'} & {*sys.modules}\n"
        "import matplotlib, sklearn; print(matplotlib.__name__, sklearn.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "matplotlib sklearn\n", done.stderr
