"""Errors that a person meets when data is missing, broken or not what a flag says."""

from __future__ import annotations


class DataError(ValueError):
    """Data is missing or unusable. The message names the file or flag and says what to do."""


class RecordError(DataError):
    """One example cannot be read from disk; the others of its file may still be good."""


class TooManyBadExamples(DataError):
    """More training examples are unreadable than `--max_bad_examples` allows."""
