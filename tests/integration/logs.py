"""Reads the lines of a run's log."""


def losses(lines):
    """Returns the loss of each step in a log."""
    return [line["data"]["train.loss"] for line in lines if len(line.get("step", "")) == 2]
