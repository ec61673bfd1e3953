"""What ranks ask of each other is done after the step, and in an epoch's last step at its end."""

from types import SimpleNamespace

import pytest

from convoy.runtime.train.after_step import FinishedStep
from convoy.runtime.train.wishes import WishesOfRanks
from convoy.utils.signals import Wishes

NOTHING, STOP, SAVE, REGROUP = (
    Wishes(),
    Wishes(stop=True),
    Wishes(save=True),
    Wishes(regroup=True),
)


class Memory:
    """An elastic job's memory that is due for a commit after every tenth step."""

    def __init__(self, done):
        self._done = done

    def due(self, step):
        return step % 10 == 0

    def hosts_changed(self):
        return True

    def regroup(self):
        self._done.append("regroup")


def step(number, granted, ends_epoch=False):
    result = SimpleNamespace(granted=granted)
    return FinishedStep(number, result, [], 0.1, 0.0, 0.0, False, ends_epoch)


def wishes(done, memory=None):
    requests = SimpleNamespace(wishes=lambda: (False, True))
    saves = {True: "to the disk", False: "to memory"}
    save, stop = lambda to_disk: done.append(saves[to_disk]), done.append
    return WishesOfRanks(requests, memory, save, stop)


@pytest.mark.parametrize(
    ("granted", "elastic", "number", "does"),
    [
        (NOTHING, False, 10, []),
        (NOTHING, True, 7, []),
        (NOTHING, True, 10, ["to memory"]),
        (SAVE, False, 7, ["to the disk"]),
        (STOP, False, 7, ["to the disk", 7]),
        (REGROUP, True, 7, ["to memory", "regroup"]),
    ],
)
def test_a_wish_is_granted_after_its_step(granted, elastic, number, does):
    done = []
    asked = wishes(done, Memory(done) if elastic else None)
    asked.after_step(step(number, granted))
    assert done == does
    assert asked.take_left() == NOTHING


def test_a_wish_in_an_epochs_last_step_is_left_to_its_end():
    done = []
    asked = wishes(done, Memory(done))
    asked.after_step(step(10, STOP, ends_epoch=True))
    assert not done
    assert asked.take_left() == STOP
    assert asked.take_left() == NOTHING


def test_a_rank_sends_its_own_wishes():
    assert wishes([]).own() == SAVE
    assert wishes([], Memory([])).own() == Wishes(save=True, regroup=True)
