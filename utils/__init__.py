"""Small general tools. This package imports nothing else of the project.

Nothing heavy is imported here: `utils.optim.lr_scaling_and_decay`, `utils.metrics`,
`utils.logging` and the name lists of `utils.optim.optimizers` do not import TensorFlow.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Builds (does not raise) the error for a name that is not in `known`.

    Args:
        what: the kind of name, with its flag, such as `"schedule (--lr_decay)"`.
        name: the given name.
        known: all accepted names, in the order for listing them.

    Returns:
        A `ValueError` that names the nearest accepted name, if one is near, and lists all.

    Example:
        >>> str(unknown_name("colour", "gren", ["red", "green"]))
        "Unknown colour 'gren'; did you mean 'green'? Known: red, green."
    """
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"Unknown {what} {name!r}{hint} Known: {', '.join(names)}.")
