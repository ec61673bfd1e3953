"""Why an image cannot be read, in words. No TensorFlow is imported."""

from __future__ import annotations

_LONGEST = 200


def first_words(error: Exception) -> str:
    """A TensorFlow error's message without the names of nodes and operations around it.

    TensorFlow may put bytes that it could not parse into a message, on which Python then fails
    with a UnicodeDecodeError: the message is inside that.
    """
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="backslashreplace")
    else:
        message = getattr(error, "message", str(error))
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).removeprefix("BadImage: ")
    text = text.split("__wrapped__")[-1].split("}} ")[-1]
    text = text.split("Summarized data: ")[-1].strip("b'")  # of an Assert
    return text.split(" [Op:")[0].rstrip(".")[:_LONGEST]
