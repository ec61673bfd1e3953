"""Says in words why an image cannot be read. Imports no TensorFlow."""

from __future__ import annotations

_LONGEST = 200


def first_words(error: Exception) -> str:
    """Returns a TensorFlow error's message without names of nodes and operations.

    TensorFlow may put bytes that it could not parse into a message. Python then fails with a
    UnicodeDecodeError, which contains the message.
    """
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="backslashreplace")
    else:
        message = getattr(error, "message", str(error))
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).removeprefix("BadImage: ")
    text = text.split("__wrapped__")[-1].split("}} ")[-1]
    text = text.split("Summarized data: ")[-1].strip("b'")  # from an Assert
    return text.split(" [Op:")[0].rstrip(".")[:_LONGEST]
