"""A Horovod that does not fit the installed TensorFlow, loaded for real."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from convoy.runtime.describe import environment
from convoy.utils.distributed import horovod_build, ranks

REAL = Path(importlib.util.find_spec("horovod").origin).parent
# What the C++ of a Horovod for TensorFlow 2.20 asks TensorFlow 2.21 for.
SOURCE = """
namespace stream_executor { namespace gpu { void AsGpuStreamValue(); } }
__attribute__((constructor)) static void load() { stream_executor::gpu::AsGpuStreamValue(); }
"""
SYMBOL = "_ZN15stream_executor3gpu16AsGpuStreamValueEv"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with a copy of Horovod whose library asks for a symbol that TensorFlow lacks."""
    folder = tmp_path_factory.mktemp("packages")
    left_out = shutil.ignore_patterns("*.so", "__pycache__", "spark", "ray", "torch", "mxnet")
    shutil.copytree(REAL, folder / "horovod", ignore=left_out)
    library = folder / "horovod/tensorflow" / next(REAL.glob("tensorflow/mpi_lib*.so")).name
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", library]
    subprocess.run(command, input=SOURCE, text=True, check=True, timeout=60)
    return folder


@pytest.fixture
def built_for(broken, monkeypatch):
    """Returns a function that makes the copy the installed Horovod, built for this version."""
    for name in [name for name in sys.modules if name.split(".")[0] == "horovod"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(broken))

    def record(version):
        (broken / "horovod/metadata.json").write_text(json.dumps({"tensorflow": version}))

    yield record
    for name in [name for name in sys.modules if name.split(".")[0] == "horovod"]:
        del sys.modules[name]


HERE = tf.__version__
PATCH = f"{HERE}.post1"


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("2.16.2", f"Horovod was built for TensorFlow 2.16.2, and {HERE} is installed: run `make"),
        (PATCH, f"Horovod was built for TensorFlow {PATCH}, and {HERE} is installed: run `make"),
        (HERE, f"undefined symbol: {SYMBOL}): run `make setup`, which builds it again"),
    ],
)
def test_a_horovod_built_for_another_tensorflow_says_for_which(built_for, version, says):
    built_for(version)
    with pytest.raises(horovod_build.HorovodError) as caught:
        horovod_build.load()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert horovod_build.build_info() == {}


def test_several_processes_and_mode_env_say_what_is_wrong_with_horovod(
    built_for, monkeypatch, capsys
):
    built_for("2.16.2")
    monkeypatch.setattr(ranks, "launched_processes", lambda: 2)
    monkeypatch.setattr(ranks, "begin", lambda: None)
    with pytest.raises(ranks.DistributedError) as caught:
        ranks.init()
    start = "2 processes were launched, but Horovod was built for TensorFlow 2.16.2, and"
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith("or start one process")
    environment.show()
    assert "Horovod                         Horovod was built for " in capsys.readouterr().out
