"""Errors of the machine are explained; only faults of the program print a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from convoy.runtime import failures
from convoy.runtime.failures import explain, interrupted
from convoy.runtime.runner import RUNS, Runner
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.modes import MODES
from convoy.utils import extras
from convoy.utils.distributed.launched import check_launch
from convoy.utils.distributed.slurm_and_nproc import DistributedError
from convoy.utils.errors import ConfigError
from convoy.utils.machine.device import DeviceError, check_backend, setup, take_environment

ROOT = Path(__file__).resolve().parents[2]
TF_OOM = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def of_layer(number):
    """Returns an OSError in the form in which Keras re-raises one from a layer."""
    return OSError(f"Exception encountered when calling Conv2D.call().\n\n\x1b[1m{number}\x1b[0m")


@pytest.mark.parametrize(
    ("error", "settings", "words"),
    [
        (MemoryError(), {}, "out of memory in training: lower --train_batch_size (it is 32)"),
        (TF_OOM, {"mode": "train"}, "(it is 224), or take --recompute blocks (it is none); --grad"),
        (TF_OOM, {"recompute": "blocks"}, "or --image_size (it is 224); --grad_accum_steps 2"),
        (TF_OOM, {"mode": "eval", "image_size": 64}, "evaluation: lower --eval_batch_size"),
        (
            TF_OOM,
            {"mode": "predict", "predict_dir": "x"},
            "lower --predict_batch_size (it is auto)",
        ),
        (TF_OOM, {"mode": "predict", "image": "x"}, "--mode predict: lower --image_size"),
        (TF_OOM, {"mode": "export"}, "--mode export: lower --image_size"),
        (TF_OOM, {"train_batch_size": 1}, "in training: lower --image_size"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), {}, "out of memory"),
        (RuntimeError("std::bad_alloc"), {}, "out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), {}, "Raise that with ulimit -n"),
        (of_layer(errno.EMFILE), {}, "too many files are open at once"),
        (tf.errors.ResourceExhaustedError(None, None, "x; Too many open files"), {}, "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left", "x"), {"mode": "predict"}, "no space is left on a"),
        (
            tf.errors.ResourceExhaustedError(None, None, "a; No space left on device"),
            {"mode": "export"},
            "no space is left on a disk: a",
        ),
        (ImportError("no", name="tensorflow"), {}, "tensorflow is not installed: "),
        (ImportError("no", name="matplotlib.figure"), {}, "matplotlib is not installed"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), {}, "Permission denied: 'x'"),
        (ConfigError("--a is b"), {}, "--a is b"),
        (DeviceError("no GPU"), {}, "no GPU"),
        (RuntimeError("anything"), {}, ""),
        (ImportError("no", name="convoy.model.lost"), {}, ""),
        (tf.errors.InvalidArgumentError(None, None, "shape"), {}, ""),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " ") if not isinstance(value, dict) else None,
)
def test_an_error_of_the_machine_is_explained_and_a_fault_is_not(tmp_path, error, settings, words):
    text = explain(error, Config(**({"model_dir": str(tmp_path)} | settings)))
    assert text == "" if not words else words in text
    assert "--resume_checkpoint" not in text, "there is no checkpoint to resume from"


def test_an_error_is_explained_by_its_cause(tmp_path):
    error = RuntimeError("a layer failed")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert "too many files" in explain(error, Config(model_dir=str(tmp_path)))


def test_out_of_memory_in_evaluation_names_eval_batch_size(tmp_path):
    code = compile("raise MemoryError", "evaluate.py", "exec")
    try:
        exec(code, {"__name__": "convoy.runtime.train.epoch_evaluations"})
    except MemoryError as error:
        text = explain(error, Config(model_dir=str(tmp_path)))
    assert "out of memory in evaluation: lower --eval_batch_size" in text


THROWING = """
import ctypes, sys, threading, time
from convoy.runtime.settings.config import Config
from convoy.runtime.failures import explain
from convoy.utils.machine.last_words import tell_of_termination
config = Config(model_dir="/nowhere", mode="predict", predict_dir="x")
tell_of_termination(lambda error: "convoy: " + explain(error, config), 1)
library = ctypes.CDLL("libstdc++.so.6")
throw = getattr(library, sys.argv[1])
if sys.argv[2:]:
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
threading.Thread(target=throw, args=(b"what",)).start()
time.sleep(20)
"""


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["_ZSt17__throw_bad_allocv"], 1, "convoy: out of memory in --mode predict: lower --pre"),
        (["_ZSt19__throw_logic_errorPKc", "few"], 1, "convoy: too many files are open at once: 3"),
        (["_ZSt19__throw_logic_errorPKc"], -signal.SIGABRT, "std::logic_error"),
    ],
)
def test_a_cpp_exception_in_a_librarys_thread_is_explained(args, code, words):
    done = python("-c", THROWING, *args)
    assert done.returncode == code
    assert words in done.stderr


def test_messages_suggest_to_resume_only_if_there_is_a_checkpoint(tmp_path, monkeypatch):
    config = Config(model_dir=str(tmp_path))
    assert interrupted(config) == "interrupted, before the first checkpoint"
    assert interrupted(config.with_(mode="predict")) == "interrupted"
    monkeypatch.setattr(failures.checkpoint, "complete_checkpoints", lambda folder: ["step-1"])
    assert "complete: continue with --resume_checkpoint" in interrupted(config)
    assert interrupted(config.with_(mode="eval")) == "interrupted"
    assert "before the first" in interrupted(config.with_(no_checkpoints=True))
    assert "--resume_checkpoint" in explain(MemoryError(), config)


def test_every_mode_has_a_function_and_some_refuse_several_processes(monkeypatch):
    assert set(RUNS) == set(MODES)
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    for name in ("predict", "export", "summary", "convert", "report", "inference_benchmark"):
        with pytest.raises(
            ConfigError, match=f"--mode {name} runs in one process, and HOROVOD_SIZE"
        ):
            Runner(Config(mode=name)).run()


def test_a_rank_without_a_gpu_of_its_own_is_an_error(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    with pytest.raises(DeviceError, match=r"process 1 of this host .* has no GPU: 1 are visible"):
        setup(local_rank=1, intraop_threads=None, interop_threads=None, tf32=True)


def test_environment_variables_cannot_change_keras_backend(monkeypatch):
    others = {"KERAS_BACKEND": "jax", "KERAS_HOME": "/somewhere", "MPLBACKEND": "nonsense"}
    others |= {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "cpp"}
    others |= {"TF_FUNCTION_JIT_COMPILE_DEFAULT": "1"}
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    first, second = take_environment()
    assert first == "computing with TensorFlow: KERAS_BACKEND (jax) is ignored"
    assert "TF_FUNCTION_JIT_COMPILE_DEFAULT" in second
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert not os.path.isdir(os.environ["KERAS_HOME"])
    assert os.environ["MPLBACKEND"] == "agg"
    assert not {name for name in others if name.startswith(("PROTOCOL", "TF_"))} & {*os.environ}
    assert take_environment() == []
    monkeypatch.delenv("KERAS_BACKEND")
    assert take_environment() == []
    check_backend()
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    check_backend()
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(DeviceError, match=r"backend is torch here.*KERAS_BACKEND=tensorflow"):
        check_backend()


@pytest.mark.parametrize("variable", ["HOROVOD_SIZE", "HOROVOD_ELASTIC"])
def test_horovod_variables_left_by_another_job_are_an_error(monkeypatch, variable):
    monkeypatch.setenv(variable, "2")
    with pytest.raises(DistributedError, match=rf"{variable} in the environment is another job's"):
        Runner(Config(mode="train")).run()
    monkeypatch.setenv("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1")
    check_launch()
    monkeypatch.setenv("HOROVOD_SIZE", "1")
    monkeypatch.delenv("HOROVOD_ELASTIC", raising=False)
    monkeypatch.delenv("HOROVOD_GLOO_RENDEZVOUS_ADDR")
    check_launch()


def test_the_program_runs_under_foreign_environment_variables():
    """The variables concern Keras and libraries that it imports; PYTHONOPTIMIZE=2 is refused."""
    others = {"KERAS_BACKEND": "jax", "MPLBACKEND": "nonsense", "MPLCONFIGDIR": "/proc/nowhere"}
    flags = ("--mode", "summary", "--arch", "efficientnet-test")
    others |= {"TF_USE_LEGACY_KERAS": "1", "PYTHONIOENCODING": "ascii", "COLUMNS": "20"}
    others |= {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "cpp"}
    done = python("main.py", *flags, **others)
    assert done.returncode == 0, done.stderr
    assert "Total params: 55,350" in done.stdout, "a table of 20 columns would fold it"
    assert done.stderr.splitlines() == [
        "convoy: computing with TensorFlow: KERAS_BACKEND (jax) is ignored"
    ]
    done = python("main.py", *flags, PYTHONOPTIMIZE="2")
    assert done.returncode == 1
    assert "unset PYTHONOPTIMIZE" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_library_with_another_keras_backend_is_an_error():
    code = "from convoy.model import build_model"
    done = python("-c", code, KERAS_BACKEND="jax")
    assert "DeviceError: Keras' backend is jax here" in done.stderr
    assert "No module named" not in done.stderr
    assert (
        python("-c", "import convoy.model.catalog, convoy.runtime", KERAS_BACKEND="jax").stderr
        == ""
    )


def python(*args, **environment):
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("args", [["--help"], ["--mode", "list"], []], ids=str)
def test_a_python_without_the_packages_names_how_to_get_them(args):
    done = python("-S", "main.py", *args, PYTHONPATH="")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "lacks the package " in line
    assert ".venv/bin/python main.py, or source .venv/bin/activate" in line
    done = python("-S", "-m", "dataloader.prepare", "verify", "--data_dir", "x", PYTHONPATH="")
    assert "lacks the package numpy" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_an_environment_the_message_says_how_to_make_one(monkeypatch, tmp_path):
    lacking = ModuleNotFoundError(name="jsonargparse")
    monkeypatch.setattr(extras, "_ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.chdir(ROOT)
    said = extras.missing_requirement(lacking)
    assert "Run make setup once, then .venv/bin/python main.py, or source .venv/bin/" in said
    monkeypatch.chdir(tmp_path)
    said = extras.missing_requirement(lacking)
    assert f"make -C {ROOT} setup once, then {ROOT}/.venv/bin/python {ROOT}/main.py" in said


def test_without_tensorflow_the_message_points_to_convoys_environment(monkeypatch, tmp_path):
    lacking = ModuleNotFoundError(name="tensorflow")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(extras, "_ENVIRONMENT", tmp_path / ".venv")
    assert "Use Convoy's environment: " in extras.missing_requirement(lacking)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "setup, which completes the installation" in extras.missing_requirement(lacking)


def test_a_python_without_tensorflow_names_the_extra_to_install(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from convoy.__main__ import main\n"
        "sys.exit(main(['--mode', 'summary', '--arch', 'efficientnet-test']))"
    )
    done = python("-c", code)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the package tensorflow is not installed: " in done.stderr
    way_out = ("run make setup", "pip install")[sys.prefix != str(ROOT / ".venv")]
    assert way_out in done.stderr


@pytest.mark.parametrize("environment", [{"PYTHONSAFEPATH": "1"}, {"COLUMNS": "20"}])
def test_the_program_starts_with_pythonsafepath_and_a_narrow_terminal(environment):
    done = python("main.py", "--mode", "list", PYTHONPATH="", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("efficientnet-b0      224")


@pytest.mark.parametrize(
    "command", ["--help", "--mode list", pytest.param("--mode env", marks=pytest.mark.slow)]
)
def test_output_into_a_closed_pipe_is_no_error(command):
    line = f"set -o pipefail; {sys.executable} main.py {command} | true; echo code $?"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "code 0"
    assert done.stderr == ""
