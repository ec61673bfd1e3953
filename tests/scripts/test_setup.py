"""What scripts/setup.sh refuses before it installs anything, and the patches that it needs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "scripts" / "horovod").glob("*.patch"))


def set_up(tmp_path, programs, **variables):
    """Runs scripts/setup.sh with only these programs on PATH: {name: shell script, or None}.

    None stands for the system's own program.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in ({"dirname": None, "bash": None} | programs).items():
        if script is None:
            found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
            (folder / name).symlink_to(found.stdout.strip())
        else:
            (folder / name).write_text(f"#!/bin/bash\n{script}\n")
            (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "HOME": str(tmp_path), "VENV": str(tmp_path / "venv")}
    script = ROOT / "scripts" / "setup.sh"
    return subprocess.run(
        ["/bin/bash", script],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def python(version):
    return f"echo {version}"  # it answers every question with its version, and succeeds


@pytest.mark.parametrize(
    ("programs", "variables", "says"),
    [
        ({}, {}, "no python3 found: install Python 3.13"),
        ({}, {"TENSORFLOW": "2.20"}, "versions are pinned for 2.21 (the default) and 2.18"),
        (
            {"python3": python("3.14"), "python3.12": python("3.12")},
            {},
            "PYTHON=python3.12 make setup",
        ),
        ({"python3": python("3.14")}, {}, "needs one of 3.13, 3.12, 3.11, 3.10: install Python"),
        ({"python3": python("3.13")}, {"TENSORFLOW": "2.18"}, "needs one of 3.12, 3.11, 3.10"),
        ({"python3": "exit 1"}, {}, "python3 does not run"),
        ({"python3": python("3.13")}, {}, "no C++ compiler (g++)"),
        ({"python3": python("3.13"), "g++": "true"}, {}, "install the package make"),
        (
            {"python3": python("3.13"), "g++": "true", "make": "true"},
            {},
            "install the package patch",
        ),
    ],
)
def test_what_is_missing_ends_the_set_up_with_the_way_out(tmp_path, programs, variables, says):
    done = set_up(tmp_path, programs, **variables)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("file", PATCHES, ids=lambda file: file.stem)
def test_a_patch_says_what_it_does_why_and_for_which_tensorflow(file):
    head = file.read_text().partition("\n--- a/")[0]
    assert head.startswith("Horovod 0.28.1 (Apache License 2.0), ")
    assert "TensorFlow" in head.splitlines()[0]
    assert re.search(r"^What: ", head, re.M)
    assert re.search(r"^Why: ", head, re.M)


def test_a_patch_that_does_not_apply_ends_the_build_with_its_name(tmp_path):
    """With a pip that brings a source which differs from what the patches expect."""
    source = tmp_path / "horovod-0"
    (source / "horovod/common").mkdir(parents=True)
    (source / "horovod/common/common.h").write_text("something else\n")
    subprocess.run(["tar", "czf", tmp_path / "horovod-0.tar.gz", "-C", tmp_path, source.name])
    pip = tmp_path / "venv/bin/python"
    pip.parent.mkdir(parents=True)
    copy = f'cp {tmp_path}/horovod-0.tar.gz "${{@: -2:1}}"'
    pip.write_text(f"#!/bin/bash\n{copy}\n")
    pip.chmod(0o755)
    cache = tmp_path / "cache"
    done = subprocess.run(
        [ROOT / "scripts/horovod/build.sh", tmp_path / "wheels"],
        env=os.environ
        | {"VENV": str(tmp_path / "venv"), "PINS": "constraints.txt", "CACHE": str(cache)}
        | {"GPU": "no", "MPI": "no"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "1-idle-cycle-time.patch does not apply to this release of Horovod" in done.stderr
    assert (cache / "horovod-build.log").exists()
    assert not (tmp_path / "wheels").exists()


DRIVER = """case $* in -L) echo 'GPU 0: NVIDIA' ;; *) echo {} ;; esac"""


@pytest.mark.parametrize(("driver", "warns"), [("470.256.02", True), ("570.86.15", False)])
def test_a_driver_too_old_for_tensorflows_cuda_is_told_before_anything_is_built(
    tmp_path, driver, warns
):
    programs = {"python3": python("3.13"), "g++": "true", "make": "true", "patch": "true"}
    programs |= {"nvidia-smi": DRIVER.format(driver), "sed": None, "head": None}
    done = set_up(tmp_path, programs)
    warning = (
        f"setup: WARNING: NVIDIA's driver {driver} is too old for TensorFlow's CUDA 12, so that"
        " training will use the CPU: install driver 525 or newer"
    )
    assert (warning in done.stdout.splitlines()) is warns
