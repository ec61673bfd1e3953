"""Runs on a CSV list of images equal runs on the same images in folders."""

import os
import re

import pytest

from convoy.runtime.run_folder import checkpoint
from main import main


@pytest.fixture(scope="module")
def both(tmp_path_factory, writers):
    """60 digits in folders, and a shuffled list of them with their splits."""
    root, rows = tmp_path_factory.mktemp("digits"), []
    for i, (pixels, label) in enumerate(writers.digits(60)):
        split = "val" if i >= 45 else "train"
        (root / split / str(label)).mkdir(parents=True, exist_ok=True)
        path = f"{split}/{label}/{i:03d}.jpg"
        (root / path).write_bytes(writers.jpeg(pixels))
        rows.append(f"{path},{label},{split}\n")
    (root / "list.csv").write_text("path,label,split\n" + "".join(sorted(rows, key=hash)))
    return root


def run(small_run, data, model_dir, *more):
    flags = [*small_run, "--data_dir", data, "--model_dir", model_dir, "--warmup_epochs", 0]
    return main([str(flag) for flag in (*flags, *more)])


def weights(folder):
    found = checkpoint.complete_checkpoints(folder)
    return [(path / "model.safetensors").read_bytes() for path in found]


@pytest.mark.slow
def test_training_on_a_list_gives_the_same_weights_as_on_folders(both, small_run, tmp_path, capfd):
    one = ("--max_epochs", 1)
    assert run(small_run, both, tmp_path / "folders", *one) == 0
    assert run(small_run, os.path.relpath(both / "list.csv"), tmp_path / "list", *one) == 0
    printed = capfd.readouterr().out
    assert "train: 45 images of 10 classes" in printed
    assert weights(tmp_path / "folders") == weights(tmp_path / "list")
    text = (tmp_path / "list" / "log.json").read_text()
    (loss,) = set(re.findall(r'"eval_loss": ([\d.]+)', text))
    assert main(["--mode", "eval", "--model_dir", str(tmp_path / "list")]) == 0
    assert f" {float(loss):.4f} nats" in capfd.readouterr().out


@pytest.mark.slow
def test_a_run_on_a_list_resumes_exactly_and_reports_changed_labels(
    both, small_run, tmp_path, capfd
):
    data, two = both / "list.csv", ("--max_epochs", 2)
    assert run(small_run, both, tmp_path / "folders", *two) == 0
    assert run(small_run, data, tmp_path / "list", *two, "--run_epochs", 1) == 0
    capfd.readouterr()
    assert run(small_run, data, tmp_path / "list", *two, "--resume_checkpoint") == 0
    assert "other training images" not in capfd.readouterr().out
    assert weights(tmp_path / "folders") == weights(tmp_path / "list")

    lines = (both / "list.csv").read_text().splitlines()
    changed = next(i for i, line in enumerate(lines) if line.endswith(",3,train"))
    lines[changed] = lines[changed].replace(",3,", ",4,")
    (both / "changed.csv").write_text("\n".join(lines) + "\n")
    flags = ("--max_epochs", 3, "--resume_checkpoint")
    assert run(small_run, both / "changed.csv", tmp_path / "list", *flags) == 0
    assert "other training images than before, the same number (45)" in capfd.readouterr().out


def test_mistakes_in_a_list_are_refused_with_their_line(both, tmp_path, refused):
    bad = both / "bad.csv"
    bad.write_text("path,label\ntrain/0/000.jpg,0\nnowhere.jpg,1\n")
    says = refused("--data_dir", bad, "--model_dir", tmp_path / "run", "--mode", "train")
    assert f"{bad}, line 3: nowhere.jpg does not exist" in says
    (both / "whole.csv").write_text("path,label\ntrain/0/000.jpg,0\ntrain/1/001.jpg,1\n")
    says = refused("--data_dir", both / "whole.csv", "--model_dir", tmp_path / "run")
    assert "has no validation split: give it a column split (train, val), hold a part" in says
