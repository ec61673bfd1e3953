"""The installed wheel contains only `convoy` and works without a checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.onnx_bytes import metadata, network

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("convoy", "configs", "dataloader", "model", "runtime", "utils")
TRAIN = ("--mode", "train", "--arch", "efficientnet-test", "--data_dir", "photos")
TRAIN += ("--image_size", "32", "--train_batch_size", "4", "--max_epochs", "1")
TRAIN += ("--warmup_epochs", "0", "--no-training_report")


class Installed:
    """A virtual environment with the wheel; all other packages come from the tests' environment."""

    def __init__(self, wheel, folder):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (self.site,) = folder.glob("lib/python3.*/site-packages")
        self.program = folder / "bin" / "convoy"
        pip = [sys.executable, "-m", "pip", "-q", "--python", folder / "bin" / "python"]
        subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
        self.brought = {path.name for path in self.site.iterdir()}
        # Only as a path: .pth files in that folder, one of which adds the checkout, are not read.
        (self.site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *words, where, **environment):
        usual = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [self.program, *words],
            cwd=where,
            env=usual | environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        built = shutil.ignore_patterns("__pycache__", "convoy-*")
        shutil.copytree(ROOT / name, place / name, ignore=built)
    for name in ("pyproject.toml", "README.md", "LICENSE", "main.py"):
        shutil.copy(ROOT / name, place)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", place / "dist", place], check=True, timeout=240)
    (found,) = (place / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return Installed(wheel, tmp_path_factory.mktemp("environment"))


@pytest.fixture
def empty(tmp_path):
    """A user's folder with photographs, and modules named like Convoy's packages."""
    for name in ("utils", "model", "runtime", "dataloader", "main"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported the user\\'s {name}')\n")
    for split, count in (("train", 4), ("val", 1)):
        for i, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (40, 40), (90 * i, 40 * k, 9)).save(folder / f"{k}.jpg")
    return tmp_path


def test_the_wheel_has_one_package_with_all_its_files(wheel, installed):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == installed.brought
    (info,) = installed.brought - {"convoy"}
    assert info.endswith(".dist-info")
    assert {"convoy/py.typed", f"{info}/licenses/LICENSE"} <= names
    for folder, pattern in (
        ("configs", "**/*.yaml"),
        ("dataloader/native", "*.cc"),
        ("dataloader/plain/native", "*.cc"),
        ("model/native", "*.h"),
        ("utils/native", "*.h"),
        ("utils/pages/templates", "*.j2"),
        ("runtime", "**/*.py"),
    ):
        wanted = {f"convoy/{p.relative_to(ROOT)}" for p in (ROOT / folder).glob(pattern)}
        assert wanted, folder
        assert wanted <= names, sorted(wanted - names)[:5]
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.slow
def test_the_wheel_runs_in_a_folder_with_a_users_modules(installed, empty):
    assert "resnet18" in installed.run("--mode", "list", "--pattern", "resnet18", where=empty)
    recipe = ("--recipe", "efficientnet-b0/FP32/cpu", "--data_dir", "photos")
    assert "max_epochs: 500" in installed.run(*recipe, "--print_config", where=empty)
    # without a compiler: one line for each library
    text = installed.run(*TRAIN, "--model_dir", "run", where=empty, CXX="/no/compiler")
    for kind in ("input", "training"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"native {kind} oper"))
        assert "not built, as there is no C++ compiler (/no/compiler)" in line
    assert (empty / "run" / "checkpoints").is_dir()
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler")
def test_the_first_run_builds_the_native_operations(installed, empty):
    assert "training operations" in installed.run("--mode", "env", where=empty)
    assert not list(installed.site.rglob("convoy-*.so"))
    text = installed.run(*TRAIN, "--model_dir", "run", where=empty)
    # For input and training.
    assert text.count("building native operations for this TensorFlow, once") == 2
    assert len(list((installed.site / "convoy" / "model" / "native").glob("convoy-*.so"))) == 1
    text = installed.run(*TRAIN, "--model_dir", "again", where=empty)
    assert "native" not in text
    assert "in use (" in installed.run("--mode", "env", where=empty)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiler_that_fails_is_called_only_once(installed, empty):
    for library in (installed.site / "convoy").rglob("convoy-*"):
        library.unlink()
    for model_dir in ("one", "two"):
        text = installed.run(*TRAIN, "--model_dir", model_dir, where=empty, CXX=sys.executable)
        assert "not built: the compiler failed, see " in text
        assert ("once" in text) == (model_dir == "one")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_small_package_labels_a_photograph_from_an_exports_folder(wheel, tmp_path):
    """It needs the package registry, and brings no TensorFlow."""
    place, export = tmp_path / "environment", tmp_path / "export"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [place / "bin" / "python", "-m", "pip", "-q", "install", "-c", ROOT / "constraints.txt"]
    before = size_of(place)
    subprocess.run([*pip, f"{wheel}[predict]"], check=True, timeout=600)
    assert size_of(place) - before < 250e6  # docs/predict.md says 200 MB
    (site,) = place.glob("lib/python3.*/site-packages")
    brought = {path.name.split("-")[0] for path in site.glob("*.dist-info")}
    assert not brought & {"tensorflow", "tensorflow_cpu", "keras", "tensorboard", "h5py"}
    export.mkdir()
    (export / "model.onnx").write_bytes(network([[1, 0], [0, 1], [0, 0]], about=metadata()))
    Image.new("RGB", (90, 60), (200, 40, 40)).save(tmp_path / "photo.jpg")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [place / "bin" / "convoy", "predict", "--model_dir", "export", "--image", "photo.jpg"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("photo.jpg: cat 100.0%, dog 0.0%\n", "")
    training = [place / "bin" / "convoy", "summary", "--arch", "resnet18"]
    done = subprocess.run(training, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not installed: pip install 'convoy[cpu]'" in done.stderr


def size_of(folder):
    """Returns the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
