"""The end of a training run's output: its results, and the commands that it suggests."""

import re
import shlex
from types import SimpleNamespace

import pytest

from convoy.runtime.command_line.cli import parse
from convoy.runtime.run_folder import next_commands, which_checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.train.outcome import Ended, outcome


def commands_in(text):
    """Returns the flags of each command in a text."""
    whole = text.replace("\\\n", " ")
    return [shlex.split(line)[2:] for line in whole.splitlines() if line.startswith("  python ")]


def test_a_run_ends_with_its_best_and_last_epoch_and_valid_commands(trained, tmp_path, log_lines):
    text = trained.text
    lines = text[text.index("\nbest: ") + 1 :].splitlines()
    figures = {line["step"][0]: line["data"] for line in log_lines(trained.model_dir / "log.json")
               if len(line.get("step", "")) == 1 and "eval_loss" in line["data"]}  # fmt: skip
    names = ("eval_accuracy_top_1", "eval_ema_accuracy_top_1")
    scores = {epoch: max(data[name] for name in names) for epoch, data in figures.items()}
    best = max(scores, key=scores.get)
    assert lines[0].startswith(f"best: epoch {best} of 2, top-1 {scores[best]:.2%}")
    assert lines[1] == f"  in {which_checkpoint.best(trained.model_dir)}"
    raw, ema = (figures[2][name] for name in names)
    assert lines[2] == f"last: epoch 2 of 2, top-1 {raw:.2%} (moving average {ema:.2%})"
    assert re.fullmatch(r"  in training top-1 [\d.]+%, loss [\d.]+", lines[3])
    own = lines[: lines.index("to continue training:")]
    assert max(len(line) for line in own if str(trained.model_dir) not in line) < 80
    # The numbers for benchmarks are only in the log.
    summary = log_lines(trained.model_dir / "log.json")[-1]["data"]
    for name in ("avg_exp_per_second_training", "latency_99pct", "eval_examples"):
        assert name in summary
        assert name not in text
    modes = []
    for words in commands_in("\n".join(lines)):
        images = tmp_path / "FOLDER"
        images.mkdir(exist_ok=True)
        config = parse([str(images) if word == "FOLDER" else word for word in words])
        assert config.model_dir == str(trained.model_dir)
        modes.append((config.mode, config.resume_checkpoint, config.max_epochs))
    assert modes == [("predict", False, 2), ("eval", False, 2), ("export", False, 2),
                     ("train_and_eval", True, 4)]  # fmt: skip


def ended(**changes):
    config = Config(model_dir="there", **changes.pop("config", {}))
    best = {"metric": "eval_accuracy_top_1", "value": 0.5, "epoch": 3, "step": 30}
    best |= {"weights": "raw", "top1": 0.5} | changes.pop("best", {})
    state = SimpleNamespace(best=best, epoch=5, offset=0)
    figures = {"training_accuracy_top_1": 0.25, "training_loss": 1.5}
    figures |= {"eval_accuracy_top_1": 0.125}
    return Ended(**({"config": config, "state": state, "figures": figures, "evaluated": 5,
                     "exhausted": False} | changes))  # fmt: skip


def test_the_outcome_names_another_metric_and_checkpoints_that_were_not_kept():
    best = {"metric": "eval_loss", "value": 1.25, "weights": "ema", "top1": 0.75}
    lines = outcome(ended(best=best, config={"max_epochs": 9}))
    assert lines[0] == (
        "best: epoch 3 of 9 by loss 1.2500, top-1 75.00% (moving average of the weights)"
    )
    assert lines[1] == "  its checkpoint was not kept (--keep_best, --keep_checkpoints)"
    assert lines[2] == "last: epoch 5 of 9, top-1 12.50%"
    lines = outcome(ended(evaluated=3, config={"max_epochs": 9, "no_checkpoints": True}))
    assert lines[1] == "last: epoch 5 of 9, not evaluated"
    assert lines[-1] == "nothing was saved (--no_checkpoints)"


@pytest.mark.parametrize("folder", ["runs/a b", "runs/" + 30 * "long/" + "it"])
def test_suggested_commands_can_be_pasted_into_a_shell(folder, monkeypatch):
    words = ["--mode", "predict", "--model_dir", folder, "--predict_dir", "FOLDER"]
    lines = next_commands.command(*words)
    assert commands_in("\n".join(lines)) == [words]
    assert max(map(len, lines)) < 80 or "long" in folder
    monkeypatch.chdir(next_commands._MAIN.parent)
    assert next_commands.command("--mode", "list") == ["  python main.py --mode list"]


def test_suggested_commands_start_the_program_as_the_user_did(tmp_path, monkeypatch):
    program = tmp_path / "bin/convoy"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(program), "--mode", "train"])
    assert next_commands.command("--mode", "list", width=999) == [f"  {program} --mode list"]
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin")
    assert next_commands.command("--mode", "list") == ["  convoy --mode list"]
