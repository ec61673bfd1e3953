"""Recognises the errors of Horovod's exchanges, which a rank meets when another has left."""

from __future__ import annotations


def is_horovods(error: BaseException) -> bool:
    """Returns whether Horovod raised an error.

    Its operations raise TensorFlow's own errors, of several types, and its Python code may find
    that it "has not been initialized", as it stops when a rank is lost. Only the texts of these two
    tell whose they are. Other errors may name Horovod by chance, for example in a file's path.
    """
    modules = [kind.__module__.partition(".")[0] for kind in type(error).__mro__]
    if "horovod" in modules:
        return True
    own = "tensorflow" in modules or type(error) is ValueError
    return own and "horovod" in str(error).lower()
