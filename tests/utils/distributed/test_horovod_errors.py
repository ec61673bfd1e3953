"""Whose errors are Horovod's."""

import pytest
import tensorflow as tf

from convoy.utils.distributed.horovod_errors import is_horovods

SHUT_DOWN = "Horovod has been shut down. This was caused by an exception on one of the ranks"


@pytest.mark.parametrize(
    ("error", "is_its"),
    [
        (tf.errors.UnknownError(None, None, SHUT_DOWN), True),
        (tf.errors.AbortedError(None, None, "{{node HorovodGroupedAllreduce}} aborted"), True),
        (ValueError("Horovod has not been initialized; use hvd.init()."), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), False),
        (FileNotFoundError("/data/horovod/photo.jpg"), False),
        (RuntimeError("photos of Horovod dances"), False),
    ],
)
def test_horovods_errors_are_told_from_others_that_name_it(error, is_its):
    assert is_horovods(error) is is_its


def test_errors_of_horovods_own_types_are_its_own():
    exceptions = pytest.importorskip("horovod.common.exceptions")
    assert is_horovods(exceptions.HorovodInternalError("a rank is gone"))
