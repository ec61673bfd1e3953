"""A run that continues with another number of ranks or batch size in the middle of an epoch.

Every training image has its own label, so the labels of a step tell its images. The script below
records them with the learning rate of each step.
"""

import json
from collections import Counter

import pytest

from convoy.runtime.run_folder import checkpoint
from convoy.runtime.train.step import Step
from convoy.utils.optim.lr_scaling_and_decay import make_schedule
from main import main

IMAGES, EPOCHS, PEAK = 67, 4, 0.05
NOTE = """
import json, os, sys
import numpy as np
from convoy.runtime.train.step import Step

call, notes = Step.__call__, open(os.environ["NOTES"] + os.environ.get("HOROVOD_RANK", "0"), "a")

def noted(self, batches, lr, *more):
    batches, state = list(batches), self.state
    met = [int(x) for _, labels, weights in batches for x in labels[np.asarray(weights) > 0]]
    notes.write(json.dumps([state.epoch, state.offset, met, lr]) + "\\n")
    notes.flush()
    return call(self, batches, lr, *more)

Step.__call__ = noted
from main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, writers):
    """A data folder whose training images are numbered from 0 by their labels."""
    examples = [(pixels, i) for i, (pixels, _) in enumerate(writers.digits(IMAGES))]
    folder = tmp_path_factory.mktemp("labelled")
    return writers.dataset(folder, examples, examples[:9], names=range(IMAGES))


@pytest.fixture
def flags(small_run, labelled, tmp_path):
    return (
        *(*small_run, "--mode", "train", "--data_dir", labelled, "--max_epochs", str(EPOCHS)),
        *("--lr_decay", "cosine", "--warmup_epochs", "25%", "--lr_base_batch", "0"),
        *("--model_dir", tmp_path / "run", "--moving_average_decay", "0.9", "--resume_checkpoint"),
    )


def every_image_once(notes):
    """Returns whether each epoch had each image once, over all launches and ranks."""
    met = [Counter() for _ in range(EPOCHS)]
    for epoch, _, labels, _ in notes:
        met[epoch].update(labels)
    return met == [Counter(range(IMAGES))] * EPOCHS


def rates_fit(notes, batch):
    """Asserts that steps of `batch` images had the learning rate of their place in the run."""
    steps = -(-IMAGES // batch)
    rate = make_schedule("cosine", base_lr=PEAK, steps_per_epoch=steps, total_epochs=EPOCHS,
                         warmup_epochs="25%")  # fmt: skip
    for epoch, offset, _, lr in notes:
        assert lr == pytest.approx(rate(epoch * steps + -(-offset // batch)))


@pytest.mark.slow
def test_another_batch_size_within_an_epoch_keeps_the_place_and_every_image(
    flags, tmp_path, monkeypatch, capsys
):
    """12, 20, then 2 × 7 images a step; no offset is a multiple of the next batch."""
    notes, call = [], Step.__call__

    def noted(self, batches, lr, *more):
        batches = list(batches)
        met = [int(x) for _, y, w in batches for x in y.numpy()[w.numpy() > 0]]
        notes.append((self.state.epoch, self.state.offset, met, lr))
        return call(self, batches, lr, *more)

    monkeypatch.setattr(Step, "__call__", noted)
    launches = [(12, ("--prof", "9")), (20, ("--prof", "3")), (14, ("--grad_accum_steps", "2"))]
    first = 0
    for images, more in launches:
        batch = images // 2 if "--grad_accum_steps" in more else images
        args = (*flags, "--train_batch_size", batch, *more)
        assert main([str(arg) for arg in args]) == 0
        rates_fit(notes[first:], images)
        first = len(notes)
    said = capsys.readouterr().out
    assert "resuming from" in said
    assert "epoch 2, step 9" in said
    assert "20 images a step instead of 12: 4 steps an epoch, the learning rate does not" in said
    assert "14 images a step instead of 20: 5 steps an epoch" in said
    assert "processes instead" not in said
    assert "epoch 4/4  step 5/5" in said, "the progress line must count steps of this launch"
    assert every_image_once(notes)
    state = checkpoint.read(checkpoint.latest(tmp_path / "run")).state
    assert (state["epoch"], state["offset"]) == (EPOCHS, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [(1, 2, 1), (2, 1, 2)], ids=str)
def test_other_numbers_of_ranks_train_on_every_image_once(convoy, script, flags, tmp_path, ranks):
    path, env = script(NOTE), {"NOTES": str(tmp_path / "notes")}
    launches = zip(ranks, (("--prof", "6"), ("--prof", "5"), ()), strict=True)
    first, notes, done = Counter(), [], None
    for count, more in launches:
        args = (*flags, "--train_batch_size", "9", *more)
        done = convoy(*args, np=count, script=path, env=env)
        for rank in range(count):
            lines = (tmp_path / f"notes{rank}").read_text().splitlines()
            fresh = [json.loads(line) for line in lines[first[rank] :]]
            rates_fit(fresh, 9 * count)
            notes, first[rank] = notes + fresh, len(lines)
    assert every_image_once(notes)
    before, now = ranks[-2:]
    assert f"{now} instead of {before} processes: batch norm's running statistics" in done.text
    assert f"{9 * now} images a step instead of {9 * before}" in done.text
    saved = checkpoint.read(checkpoint.latest(tmp_path / "run"))
    assert (saved.state["epoch"], saved.state["offset"]) == (EPOCHS, 0)
    loss = saved.state["metrics"]["training_loss"]
    assert 2.0 < loss < 4.5, f"a little below ln {IMAGES} = 4.2, as 67 classes of one image allow"
