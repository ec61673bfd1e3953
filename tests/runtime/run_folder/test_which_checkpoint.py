"""Which checkpoint of a run is used, and which are kept."""

import json

import pytest

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.run_folder.checkpoint import CheckpointError
from tests.runtime.run_folder.saving import DAMAGE, flip_a_byte, save, steps_of


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_best_checkpoint_is_replaced_by_the_newest(tmp_path, damage):
    first, second = save(tmp_path, 10, 20)
    which_checkpoint.mark_best(tmp_path, first, {"value": 0.9})
    assert which_checkpoint.resolve(tmp_path, "best") == first
    damage(first)
    assert which_checkpoint.resolve(tmp_path, "best") == second


def test_skipped_damaged_checkpoints_are_reported(tmp_path):
    first, second, third = save(tmp_path, 10, 20, 30)
    assert which_checkpoint.passed_over(tmp_path, third) == []
    flip_a_byte(third / "model.safetensors")
    (line,) = which_checkpoint.passed_over(tmp_path, checkpoint.latest(tmp_path))
    assert f"{third} is damaged" in line
    which_checkpoint.mark_best(tmp_path, first, {"value": 0.9})
    found = which_checkpoint.resolve(tmp_path, "best")
    # The damaged newest checkpoint was not requested.
    assert which_checkpoint.passed_over(tmp_path, found, "best") == []
    flip_a_byte(first / "model.safetensors")
    found = which_checkpoint.resolve(tmp_path, "best")
    assert found == second
    assert len(which_checkpoint.passed_over(tmp_path, found, "best")) == 2
    (third / "COMPLETE.json").unlink()  # as after an interrupted save
    assert which_checkpoint.passed_over(tmp_path, found) == []


def test_a_checkpoint_is_found_by_its_name(tmp_path, monkeypatch):
    """The name is relative to model_dir's checkpoints, unless it is a path that exists."""
    monkeypatch.chdir(tmp_path)
    first, _ = save(tmp_path / "run", 319, 320)
    for name in ("step-00000319", "step-00000319/", str(first), "run/checkpoints/step-00000319"):
        assert which_checkpoint.resolve("run", name).resolve() == first
    with pytest.raises(CheckpointError) as refused:
        which_checkpoint.resolve("run", "step-00000321")
    for part in ("step-00000321", "does not exist", "--model_dir run", "step-00000319, step-"):
        assert part in str(refused.value)
    with pytest.raises(CheckpointError, match="which holds none"):
        which_checkpoint.resolve("nowhere", "step-00000319")


def test_a_model_dir_without_checkpoints_is_an_error_when_one_is_needed(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert checkpoint.latest(folder) is None
        assert which_checkpoint.best(folder) is None
        with pytest.raises(CheckpointError, match="no checkpoint in --model_dir"):
            which_checkpoint.resolve(folder, "best")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "7", '{"checkpoint": 7}', '{"checkpoint": "step-00000099"}', "\x00"]
)
def test_without_a_valid_best_json_the_best_score_counts_and_a_line_says_so(tmp_path, text):
    first, newest = save(tmp_path, 10, 20)
    file = tmp_path / "checkpoints" / "best.json"
    assert which_checkpoint.passed_over(tmp_path, newest, "best") == [], "nothing was evaluated"
    file.write_text(text)
    assert which_checkpoint.best(tmp_path) is None
    assert which_checkpoint.resolve(tmp_path) == newest
    checkpoint.add_score(first, {"score": 0.9})
    checkpoint.add_score(newest, {"score": 0.5})
    assert which_checkpoint.resolve(tmp_path) == first
    for gone in (False, True):
        (line,) = which_checkpoint.passed_over(tmp_path, first, "best")
        assert str(file) in line
        assert "using step-00000010, which has the best result of those that are left" in line
        if not gone:
            file.unlink()
    assert which_checkpoint.passed_over(tmp_path, newest, "last") == []


def test_pruning_keeps_the_best_of_each_way_of_evaluation(tmp_path):
    """A run was resumed with other images: scores before and after cannot be compared."""
    paths = save(tmp_path, 10, 20, 30, 40, 50)
    judged = [{"images": "old"}] * 2 + [{"images": "new"}] * 3
    for path, way, score in zip(paths, judged, (0.9, 0.8, 0.2, 0.3, 0.1), strict=True):
        checkpoint.add_score(path, {"score": score, "judged": way})
    assert which_checkpoint.best(tmp_path) == paths[3], "the newest way of evaluation counts"
    which_checkpoint.prune(tmp_path, keep_last=1)
    assert steps_of(checkpoint.complete_checkpoints(tmp_path)) == [10, 40, 50]


def test_best_json_cannot_point_outside_the_run(tmp_path):
    (outside,) = save(tmp_path / "other", 10)
    save(tmp_path / "run", 20)
    best = {"checkpoint": f"../../other/checkpoints/{outside.name}"}
    (tmp_path / "run" / "checkpoints" / "best.json").write_text(json.dumps(best))
    assert which_checkpoint.best(tmp_path / "run") is None


def test_pruning_keeps_the_best_and_the_newest_two(tmp_path):
    paths = save(tmp_path, 10, 20, 30, 40, 50)
    which_checkpoint.mark_best(tmp_path, paths[1], {"value": 0.9})
    (paths[3] / "COMPLETE.json").unlink()
    which_checkpoint.prune(tmp_path)
    assert steps_of(checkpoint.complete_checkpoints(tmp_path)) == [20, 30, 50]
    assert not paths[3].exists(), "the remains of a failed save are removed"
    assert which_checkpoint.best(tmp_path) == paths[1]
