"""A resumed run keeps the file that it began from, and refuses another, which it would not read."""

import numpy as np
import pytest

from convoy.runtime.checks.resumed import begun_from
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError


def resumed(folder, began, now):
    """Returns the settings of a run that began from a file, if it is resumed with another."""
    text = Config(pretrained_from_file=began).to_yaml()
    weights = {"head/bias": np.zeros(2, np.float32)}
    checkpoint.save(folder, checkpoint.Checkpoint(weights, state={"step": 1}, config=text))
    again = Config(model_dir=str(folder), resume_checkpoint=True, pretrained_from_file=now)
    return begun_from(again).pretrained_from_file


@pytest.mark.parametrize(
    ("began", "now"),
    [
        ("/a/b0.safetensors", "/a/b0.safetensors"),
        ("/a/b0.safetensors", "/a/c/../b0.safetensors"),
        ("/a/b0.safetensors", "/scratch/job7/b0.safetensors"),
        ("/a/b0.safetensors", None),
        ("/a/run/checkpoints/step-00000007", "/a/run"),  # its best checkpoint at that time
        (None, None),
    ],
)
def test_the_file_of_the_runs_start_is_kept(tmp_path, began, now):
    assert resumed(tmp_path, began, now) == began


def test_a_checkpoint_of_the_same_name_is_of_another_run(tmp_path):
    began, now = (f"/{run}/checkpoints/step-00000007" for run in "ab")
    with pytest.raises(ConfigError, match="began from /a/checkpoints"):
        resumed(tmp_path, began, now)


@pytest.mark.parametrize(
    ("began", "text"),
    [(None, "did not begin from a file"), ("/a/b0.safetensors", "began from /a/b0.safetensors")],
)
def test_another_file_is_refused(tmp_path, began, text):
    with pytest.raises(ConfigError) as caught:
        resumed(tmp_path, began, "/other.h5")
    message = str(caught.value)
    assert message.startswith("--pretrained_from_file /other.h5: the run in --model_dir")
    assert text in message
    assert "Leave --pretrained_from_file out, or start a new run in another" in message


def test_a_folder_without_checkpoints_begins_from_the_file(tmp_path):
    again = Config(model_dir=str(tmp_path), resume_checkpoint=True, pretrained_from_file="/x.h5")
    assert begun_from(again) == again
