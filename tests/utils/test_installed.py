"""Packages that are missing, in part or of the wrong version, in environments made for it."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from convoy.utils import extras, installed
from convoy.utils.machine import device

ROOT = Path(__file__).resolve().parents[2]
PINS = {"numpy": "2.4.6", "keras": "3.15.1"}


def install(folder, name, version, requires=(), module="def f(): pass\n"):
    """Installs a package as pip does: its module, and a folder that describes it."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "__init__.py").write_text(module)
    lines = [f"Requires-Dist: {text}" for text in requires]
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (about / "METADATA").write_text("\n".join([*head, *lines]) + "\n")
    rows = [f"{name}/__init__.py,sha256=x,{len(module)}", f"{name}/__pycache__/x.pyc,,"]
    (about / "RECORD").write_text("\n".join([*rows, f"{about.name}/METADATA,,"]) + "\n")


@pytest.fixture
def site(tmp_path):
    """An installation of three packages, of which `convoy[cpu]` needs two."""
    install(tmp_path, "convoy", "0.2", ["keras>=3.12", 'tensorflow-cpu>=2.17; extra == "cpu"'])
    install(tmp_path, "keras", "3.15.1", ["numpy"])
    install(tmp_path, "numpy", "2.4.6")
    return tmp_path


def found(site, wanted="convoy"):
    return installed.faults([wanted], PINS, [str(site)])


def test_a_whole_installation_has_no_faults_and_only_the_extras_asked_for_count(site):
    assert found(site) == ([], {})
    assert found(site, "convoy[cpu]") == (["tensorflow-cpu is missing"], {})


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("3.15.0", "keras 3.15.0 is installed, and 3.15.1 is pinned"),
        ("3.3.3", "keras 3.3.3 is installed, and keras>=3.12 is needed"),
    ],
)
def test_another_version_than_the_pinned_or_the_needed_one_is_wrong(site, version, says):
    (site / "keras-3.15.1.dist-info").rename(site / "old")
    install(site, "keras", version, ["numpy"])
    assert says in found(site)[0]


def test_another_build_of_the_pinned_version_is_right(site):
    (site / "keras-3.15.1.dist-info").rename(site / "old")
    install(site, "keras", "3.15.1+cpu", ["numpy"])
    assert found(site) == ([], {})


def test_a_package_with_a_file_too_few_or_cut_short_is_installed_in_part(site):
    file = site / "numpy/__init__.py"
    file.write_text("def f")
    wanted = [], {"numpy 2.4.6 is installed in part": site / "numpy-2.4.6.dist-info"}
    assert found(site) == wanted
    file.unlink()
    assert found(site) == wanted


def test_a_file_that_another_package_replaced_is_whole(site):
    record = site / "keras-3.15.1.dist-info/RECORD"
    record.write_text(f"numpy/__init__.py,sha256=y,3\n{record.read_text()}")
    (site / "numpy/__init__.py").write_text("new")
    assert found(site) == ([], {})
    (site / "numpy/__init__.py").write_text("newer")
    assert len(found(site)[1]) == 2


# Setuptools 79 warns if an earlier test of this process imported distutils; set-up runs alone.
@pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils")
def test_setup_makes_pip_install_again_what_is_there_in_part(site, monkeypatch, capsys, tmp_path):
    (site / "numpy/__init__.py").unlink()
    monkeypatch.syspath_prepend(str(site))
    pins = tmp_path / "pins.txt"
    pins.write_text(
        "# versions\nnumpy==2.4.6 ; python_version >= '3'\nnumpy==1 ; python_version < '3'\n"
    )
    assert installed.main([str(pins), "convoy"]) == 1
    assert "numpy 2.4.6 is installed in part" in capsys.readouterr().out
    assert (site / "numpy-2.4.6.dist-info").exists(), "not without --forget"
    assert installed.main(["--forget", str(pins), "convoy"]) == 1
    assert not (site / "numpy-2.4.6.dist-info").exists()
    assert metadata.version("numpy"), "another installation further on the path stays"


def test_a_wrong_version_is_refused_before_tensorflow_loads(site, monkeypatch):
    names = ["keras", "numpy"]
    assert installed.wrong_version(names) == "", "this environment fits"
    monkeypatch.setattr(metadata, "requires", lambda name: ["keras>=99 ; extra == 'x'", "rich>=99"])
    version = metadata.version("keras")
    says = f"keras {version} is installed, and >=99 is needed"
    assert installed.wrong_version(names) == says
    with pytest.raises(device.DeviceError, match=says):
        device.check_interpreter()


SCRIPT = """
import sys
{before}
from convoy.__main__ import main
sys.exit(main(["--mode", "env"]))
"""


@pytest.mark.parametrize(
    ("package", "requires", "module", "says"),
    [
        ("numpy", [], "", "numpy 9.9 is installed in part"),
        ("keras", ["lacks-this"], "from keras import x\n", "lacks-this is missing"),
    ],
)
def test_a_package_that_does_not_load_is_told_in_one_line(
    tmp_path, package, requires, module, says
):
    """It stands before the real one on the path. NumPy's ends too early, Keras' lacks another."""
    install(tmp_path, package, "9.9", requires, module or "f = 1\n")
    (tmp_path / package / "__init__.py").write_text(module)
    script = SCRIPT.format(before=f"sys.path.insert(0, {str(tmp_path)!r})")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert says in line
    assert "make setup, which completes the installation" in line or "pip install" in line


def test_an_error_of_the_programs_own_is_not_put_down_to_the_installation(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))  # where convoy lacks nothing, but real packages differ
    (site / "numpy/__init__.py").unlink()
    with pytest.raises(AttributeError) as bug:
        None.missing  # noqa: B018
    assert extras.broken_installation(bug.value) == ""
    assert "numpy 2.4.6 is installed in part" in extras.broken_installation(ImportError("numpy"))
