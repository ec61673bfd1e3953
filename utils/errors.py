"""Defines the base class of errors whose text is meant for the user, and the error about settings.

Imports nothing of the project.
"""

from __future__ import annotations


class UserError(Exception):
    """The request cannot work, either in itself or on this machine.

    The text names the flag or file and says what to do, in one or two sentences. Programs print it
    without a traceback; any other exception is a bug in the program.
    """


class ConfigError(UserError, ValueError):
    """A setting or a combination of settings cannot work.

    The text names the flag and the way out.
    """
