"""Errors for data that is missing, damaged, or does not match a flag."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping

from convoy.utils.errors import UserError

MOST_NAMED = 50
"""Maximum number of unreadable evaluation images that a message lists."""


class DataError(UserError, ValueError):
    """Data is missing or unusable. The message names the file or flag and says what to do."""


class NoSplit(DataError):
    """The data are there, without the split that was looked for."""


class RecordError(DataError):
    """One example cannot be read from disk; the others of its file may still be good."""


def unreadable(error: OSError) -> RecordError:
    """Returns the error to raise for an example that the system cannot read.

    Raises:
        OSError: the error itself, if this process has no descriptors or memory left: the next
            example would fail as well, and none of them is damaged.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error
    return RecordError(f"cannot be read ({error.strerror})")


class TooManyBadExamples(DataError):
    """More training examples are unreadable than `--max_bad_examples` allows."""


def allowed_bad_examples(limit: float, num_examples: int) -> int:
    """Converts `--max_bad_examples` or `--max_bad_eval_examples` to a count.

    A value below 1 is a fraction of the set, rounded down.
    """
    # 0.29 * 100 is 28.999…: the small term keeps rounding down from losing a whole example.
    return int(limit) if limit >= 1 else math.floor(limit * num_examples + 1e-9)


def leave_out(num_examples: int) -> str:
    """Says how to train without the unreadable training images."""
    # There may be more beyond the known ones, so their number is not a bound.
    return (
        f"have such images left out, however many there are:\n  --max_bad_examples {num_examples}"
    )


def check_bad_examples(
    bad: Mapping[int, str], num_examples: int, limit: float, *, training: bool
) -> None:
    """Raises when there are more unreadable examples than the limit allows.

    Args:
        bad: example number -> its location and what is wrong with it.
        num_examples: size of the set.
        limit: `--max_bad_examples` in training, `--max_bad_eval_examples` in evaluation.
        training: whether the set is for training.

    Raises:
        DataError: in evaluation.
        TooManyBadExamples: in training.
    """
    allowed = allowed_bad_examples(limit, num_examples)
    if len(bad) <= allowed:
        return
    if training:
        first = "\n  ".join(list(bad.values())[:5])
        raise TooManyBadExamples(
            f"{len(bad)} of {num_examples} training examples {'is' if len(bad) == 1 else 'are'}"
            f" unreadable, and --max_bad_examples {limit:g} allows {allowed}.\n"
            f"The first ones:\n  {first}\nRepair the data, or {leave_out(num_examples)}"
        )
    named = [text for _, text in sorted(bad.items())[:MOST_NAMED]]
    more = [f"and {len(bad) - len(named)} more"] if len(bad) > len(named) else []
    images, them = "\n  ".join(named + more), "it" if len(bad) == 1 else "them"
    raise DataError(
        f"{len(bad)} of {num_examples} evaluation images cannot be read:\n  {images}\n"
        f"Evaluation counts every image: repair or remove {them} (or leave {them} out:"
        f" --max_bad_eval_examples {len(bad)})"
    )
