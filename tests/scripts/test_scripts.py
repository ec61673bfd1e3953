"""Launch scripts have the names from the documents, and each does what its name says."""

import itertools
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.runtime.settings.recipes import lookup, parse_name

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
FOLDERS = ("B0", "B4", "RN50")
# Names from the two documents, with the batch size per GPU that they give.
DOCUMENTED = {
    "B0/training/AMP/convergence_8xA100-80G": 1024,
    "B0/training/AMP/convergence_8xV100-16G": 256,
    "B0/training/FP32/convergence_8xV100-16G": 128,
    "B0/training/TF32/convergence_8xA100-80G": 512,
    "B0/training/TF32/train_benchmark_8xA100-80G": 512,
    "B4/training/AMP/convergence_8xA100-80G": 160,
    "B4/training/AMP/train_benchmark_8xV100-32G": 64,
    "B4/training/FP32/train_benchmark_8xV100-32G": 32,
    "B4/training/TF32/convergence_8xA100-80G": 80,
    "RN50/AMP/DGXA100_resnet50_AMP_90E": 256,
    "RN50/TF32/DGXA100_resnet50_TF32_250E": 256,
    "RN50/FP32/DGX1V_resnet50_FP32_90E": 128,
    "RN50/AMP/DGX2V_resnet50_AMP_50E": 256,
}
EVALUATION = {
    "B0/evaluation/evaluation_AMP_8xA100-80G": 1024,
    "B0/evaluation/evaluation_FP32_8xV100-16G": 128,
    "B4/evaluation/evaluation_AMP_8xA100-80G": 128,
    "B4/evaluation/evaluation_TF32_8xA100-80G": 64,
}


def run(command, **variables):
    """Runs a command; returns its standard output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")} | variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def flags(line):
    """Returns the words of a printed command, and a dict of its flags with their values."""
    words = shlex.split(line)
    return words, {a: b for a, b in itertools.pairwise(words) if a.startswith("--")}


@pytest.fixture(scope="module")
def printed():
    """The command that each script prints in a dry run, by the script's path without .sh."""
    names = sorted(p for folder in FOLDERS for p in (SCRIPTS / folder).rglob("*.sh"))
    loop = 'for f in "$@"; do bash "$f" --seed 7 || exit 1; done'
    lines = run(["bash", "-c", loop, "-", *map(str, names)], DRY_RUN="1").splitlines()
    paths = [str(p.relative_to(SCRIPTS).with_suffix("")) for p in names]
    return dict(zip(paths, lines, strict=True))


def test_launch_scripts_equal_what_write_launch_scripts_generates():
    sys.path.insert(0, str(SCRIPTS))
    try:
        from write_launch_scripts import scripts
    finally:
        sys.path.remove(str(SCRIPTS))
    there = {
        str(p.relative_to(SCRIPTS)): p.read_text()
        for folder in FOLDERS
        for p in (SCRIPTS / folder).rglob("*")
        if p.is_file()
    }
    assert there == scripts(), "run: python scripts/write_launch_scripts.py"


def test_every_script_uses_a_recipe_that_fits_its_name(printed):
    assert len(printed) == 282
    for path, line in printed.items():
        words, given = flags(line)
        found = lookup(**parse_name(given["--recipe"]), gpus=None)
        one = "_1x" in path or "/inference/" in path
        assert int(given.get("--nproc", 1)) == (1 if one else found.gpus), path
        assert words[-2:] == ["--seed", "7"], "extra flags must come last"
        precision = next(p for p in ("AMP", "TF32", "FP32") if p in path)
        assert f"/{precision}/" in given["--recipe"], path
        assert ("--resume_checkpoint" in words) == ("convergence" in given["--recipe"]), path
        assert ("--predict_dir" in given) == ("/inference/" in path), path


def test_documented_scripts_use_the_documented_batch_sizes(printed):
    for path, batch in DOCUMENTED.items():
        found = lookup(**parse_name(flags(printed[path])[1]["--recipe"]))
        assert found.launch["train_batch_size"] == batch, path
        assert found.published, path
    for path, batch in EVALUATION.items():
        found = lookup(**parse_name(flags(printed[path])[1]["--recipe"]))
        assert found.launch["eval_batch_size"] == batch, path
    for path, line in printed.items():
        found = lookup(**parse_name(flags(line)[1]["--recipe"]))
        if "train_benchmark" in path:
            assert found.launch["prof"] == 500, path
        for epochs in (50, 90, 250):
            if path.endswith(f"_{epochs}E"):
                assert found.recipe.settings["max_epochs"] == epochs
    assert flags(printed["RN50/FP32/DGX2V_resnet50_FP32_90E"])[1]["--nproc"] == "16"


def test_environment_variables_and_an_output_folder_change_the_command():
    b0 = str(SCRIPTS / "B0/training/AMP/convergence_8xA100-80G.sh")
    variables = {"DRY_RUN": "1", "NPROC": "2", "DATA_DIR": "my data", "MODEL_DIR": "out"}
    _, given = flags(run(["bash", b0], **variables))
    assert (given["--nproc"], given["--data_dir"], given["--model_dir"]) == ("2", "my data", "out")
    words, _ = flags(run(["bash", b0, "--no-use_xla"], DRY_RUN="1", NPROC="1", PYTHON="python9"))
    assert words[0] == "python9"
    assert "--nproc" not in words
    rn50 = str(SCRIPTS / "RN50/AMP/DGXA100_resnet50_AMP_90E.sh")
    words, given = flags(run(["bash", rn50, "to here", "--seed", "1"], DRY_RUN="1"))
    assert (given["--model_dir"], words[-2:]) == ("to here", ["--seed", "1"])


SLURM = {"DRY_RUN": "1", "SLURM_JOB_ID": "5", "SLURM_JOB_PARTITION": "gpu", "PARTITION": "gpu"}


def test_multinode_jobs_use_recipes_and_the_documented_variables(tmp_path):
    for name, model in (("B0", "efficientnet-b0"), ("B4", "efficientnet-b4"), ("RN50", "resnet50")):
        sub = f"run_{name}_multinode.sub"
        text = run(["bash", sub], **SLURM, checkpointdir=str(tmp_path / "run"), SRUN_MPI="pmix")
        words, given = flags(text)
        assert given["--recipe"] == f"{model}/AMP/A100-80G"
        assert lookup(**parse_name(given["--recipe"]), gpus=32).gpus == 32
        assert given["--model_dir"] == str(tmp_path / "run")
        assert "--mpi=pmix" in words
        assert "--resume_checkpoint" in words
    in_image = ["bash", "run_B0_multinode.sub", "--container-image", "img", "--datadir", "/big"]
    array = {"SLURM_ARRAY_TASK_ID": "3", "checkpointdir": str(tmp_path)}
    words, given = flags(run([*in_image, "--lr_init", "1"], **SLURM, **array))
    assert f"--container-mounts=/big:/data,{tmp_path}/3:/model" in words
    assert (given["--data_dir"], given["--model_dir"]) == ("/data", "/model")
    assert (given["--seed"], words[-2:]) == ("3", ["--lr_init", "1"])


def test_only_the_stopped_task_of_an_array_is_requeued(tmp_path):
    for name, text in (("srun", "exit 75"), ("scontrol", 'echo "$*" > "$0.called"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    array = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3", "SRUN_MPI": "none"}
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "checkpointdir": str(tmp_path / "run")}
    environment = os.environ | SLURM | array | given | {"DRY_RUN": ""}
    command = ["bash", "run_B0_multinode.sub"]
    assert subprocess.run(command, cwd=ROOT, env=environment, timeout=60).returncode == 75
    assert (tmp_path / "scontrol.called").read_text() == "requeue 5_3\n"


def test_a_job_in_a_partition_other_than_the_requested_one_is_refused():
    wrong = SLURM | {"PARTITION": "long"}
    done = subprocess.run(
        ["bash", "run_B0_multinode.sub"],
        cwd=ROOT,
        env=os.environ | wrong,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "sbatch -p long" in done.stderr


def test_shell_scripts_pass_shellcheck():
    checker = shutil.which("shellcheck")
    if not checker:
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    files = [*SCRIPTS.rglob("*.sh"), *(ROOT / "benchmarks").rglob("*.sh")]
    files += [*ROOT.glob("*.sub"), ROOT / ".ci/run"]
    assert run([checker, "-x", *map(str, files)]) == ""


SMALL = (
    *("--arch", "efficientnet-test", "--image_size", "32", "--warmup_epochs", "0", "--no-use_xla"),
    *("--train_batch_size", "16", "--eval_batch_size", "16", "--augmenter_name", "none"),
    *("--optimizer_batch_size", "32"),
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_script_of_each_kind_runs_on_digits(tiny, photos, tmp_path):
    """Trains, resumes, evaluates, predicts and benchmarks a small model."""
    base = {"DATA_DIR": str(tiny), "INFER_DIR": str(photos), "CUDA_VISIBLE_DEVICES": "-1"}
    base |= {"MODEL_DIR": str(tmp_path / "run"), "NPROC": "2"}

    def script(name, *more, **variables):
        return run(["bash", str(SCRIPTS / name), *more], **(base | variables))

    train = "B0/training/AMP/convergence_8xA100-80G.sh"
    text = script(train, *SMALL, "--max_epochs", "2", "--run_epochs", "1")
    assert "[0] best: epoch 1 of 2, top-1 " in text
    text = script(train, *SMALL, "--max_epochs", "2")
    assert "epoch 2/2" in text
    assert "epoch 1/2" not in text
    applied = ("--arch", "efficientnet-test", "--no-use_xla")  # the recipe's model is B0
    text = script("B0/evaluation/evaluation_TF32_8xA100-80G.sh", *applied)
    assert "[0] latency_99pct" in text
    text = script("B0/inference/inference_FP32.sh", *applied, NPROC="1")
    assert "0-0.jpg" in text
    benchmark = "B4/training/FP32/train_benchmark_1xV100-32G.sh"
    text = script(benchmark, *SMALL, "--prof", "4", NPROC="1", MODEL_DIR=str(tmp_path / "bench"))
    assert "avg_exp_per_second_training" in text
    rn50 = ("--arch", "resnet50", "--image_size", "32", "--max_epochs", "1", *SMALL[4:])
    to = str(tmp_path / "rn50")
    text = script(
        "RN50/FP32/DGX1V_resnet50_FP32_50E.sh",
        to,
        *rn50,
        "--steps_per_epoch",
        "1",
        MODEL_DIR="nowhere",
    )
    assert "epoch 1/1" in text
    assert (tmp_path / "rn50/log.json").exists()
