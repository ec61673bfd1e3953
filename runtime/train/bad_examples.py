"""Collects unreadable training examples over all ranks."""

from __future__ import annotations

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.errors import allowed_bad_examples, leave_out
from convoy.runtime.train.not_finite import TrainingError
from convoy.utils.distributed import ranks
from convoy.utils.text import counted


def share_bad_examples(data: DataLoader, limit: float) -> tuple[str, TrainingError | None]:
    """Tells every rank which examples the others could not read. All ranks must call it.

    An example that is left out stays out, on whichever rank it is in the next epoch, and in a
    resumed run: the checkpoint stores the list.

    Args:
        data: a training loader.
        limit: `--max_bad_examples`.

    Returns:
        A line for the user, "" if everything was readable; and the error to raise after saving the
        epoch if there are more than the limit allows.
    """
    bad = data.bad_examples
    for others in ranks.all_gather_object(dict(bad)):
        bad.update(others)
    allowed = allowed_bad_examples(limit, data.num_examples)
    if len(bad) > allowed:
        return "", TrainingError(
            f"{counted(len(bad), 'training image')} cannot be read, over all processes;"
            f" --max_bad_examples allows {allowed}. The first:"
            f" {'; '.join(list(bad.values())[:3])}.\nRepair the data, or"
            f" {leave_out(data.num_examples)}"
        )
    if not bad:
        return "", None
    are = "image is" if len(bad) == 1 else "images are"
    text = f"{len(bad)} unreadable training {are} left out"
    return f"{text} (--max_bad_examples allows {allowed})", None
