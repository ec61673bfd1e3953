"""The score that an evaluation adds to a checkpoint."""

import pytest

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from tests.runtime.run_folder.saving import contents, save, steps_of


def state_at(step, epoch, offset):
    saved = contents(step)
    saved.state |= {"epoch": epoch, "offset": offset, "better_weights": "raw", "score": None}
    return saved


FACTS = {"score": 0.75, "better_weights": "ema", "metrics": {"eval_accuracy_top_1": 0.75}}


def test_adding_a_score_leaves_the_checkpoints_files_unchanged(tmp_path):
    path = checkpoint.save(tmp_path, state_at(8, 2, 0))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    checkpoint.add_score(path, FACTS)
    assert {name: (path / name).read_bytes() for name in before} == before
    assert checkpoint.is_complete(path, checksums=True)
    read = checkpoint.read(path)
    assert {name: read.state[name] for name in FACTS} == FACTS
    assert read.state["epoch"] == 2
    checkpoint.add_score(path, FACTS | {"score": 0.5})
    assert checkpoint.read_state(path)["score"] == 0.5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: file.write_text(file.read_text().replace("0.75", "0.95")),
        lambda file: file.write_text("[]"),
        lambda file: file.write_bytes(b"\xff\x00"),
        lambda file: file.write_text('{"of": 3, "score": 1.0}'),
    ],
    ids=["gone", "cut short", "changed", "no facts", "binary", "of another"],
)
def test_a_damaged_score_counts_as_missing_and_the_checkpoint_as_complete(tmp_path, spoil):
    path = checkpoint.save(tmp_path, state_at(8, 2, 0))
    checkpoint.add_score(path, FACTS)
    spoil(path / "score.json")
    assert checkpoint.is_complete(path, checksums=True)
    assert checkpoint.read(path).state["score"] is None


def test_a_score_copied_from_another_checkpoint_does_not_count(tmp_path):
    one = checkpoint.save(tmp_path, state_at(8, 2, 0))
    checkpoint.add_score(one, FACTS)
    other = checkpoint.save(tmp_path, state_at(16, 4, 0))
    (other / "score.json").write_bytes((one / "score.json").read_bytes())
    assert checkpoint.read_state(other)["score"] is None


def test_pruning_keeps_the_checkpoints_with_the_best_scores(tmp_path):
    paths = save(tmp_path, 10, 20, 30, 40)
    for path, score in zip(paths, (0.3, 0.9, 0.5, 0.1), strict=True):
        checkpoint.add_score(path, {"score": score})
    which_checkpoint.prune(tmp_path, keep_last=1, keep_best=2)
    assert steps_of(checkpoint.complete_checkpoints(tmp_path)) == [20, 30, 40]


def test_pruning_keeps_of_equal_scores_the_one_with_the_lowest_loss(tmp_path):
    losses = [
        {"eval_loss": 0.9},
        {"eval_loss": 0.9, "eval_ema_loss": 0.2},
        {"eval_loss": 0.3},
        {},
    ]
    for path, metrics in zip(save(tmp_path, 10, 20, 30, 40), losses, strict=True):
        weights = "ema" if "eval_ema_loss" in metrics else "raw"
        facts = {"score": 1.0, "metrics": metrics, "better_weights": weights}
        checkpoint.add_score(path, facts)
    which_checkpoint.prune(tmp_path, keep_last=1, keep_best=1)
    assert steps_of(checkpoint.complete_checkpoints(tmp_path)) == [20, 40]


def test_a_step_saved_within_an_epoch_and_at_its_end_has_two_checkpoints(tmp_path):
    """An older version saved an epoch's last step both on the timer and at the epoch's end."""
    within, end = state_at(8, 1, 128), state_at(8, 2, 0)
    first = checkpoint.save(tmp_path, within)
    assert checkpoint.save(tmp_path, within) == first
    second = checkpoint.save(tmp_path, end)
    assert (first.name, second.name) == ("step-00000008", "step-00000008-2")
    assert checkpoint.save(tmp_path, end) == second
    save(tmp_path, 9)
    found = checkpoint.complete_checkpoints(tmp_path)
    assert [path.name for path in found[:2]] == [first.name, second.name], (
        "the epoch's end is newer"
    )
    assert checkpoint.find(tmp_path, end.state) == second
    assert checkpoint.read_state(second)["offset"] == 0


@pytest.mark.parametrize(
    ("said", "has_ema", "metrics", "better"),
    [
        # Older versions wrote "raw" in --mode train, where nothing was evaluated,
        ("raw", True, {}, "ema"),
        ("raw", True, {"eval_accuracy_top_1": 0.5}, "raw"),
        # and "ema" when the moving average had been dropped.
        ("ema", False, {"eval_accuracy_top_1": 0.5}, "raw"),
        ("raw", False, {}, "raw"),
    ],
)
def test_better_weights_of_older_checkpoints_are_corrected(
    tmp_path, said, has_ema, metrics, better
):
    saved = state_at(8, 2, 0)
    saved.state |= {"better_weights": said, "metrics": metrics}
    saved.ema = saved.ema if has_ema else {}
    assert checkpoint.read(checkpoint.save(tmp_path, saved)).state["better_weights"] == better
