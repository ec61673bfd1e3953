"""The base of all errors whose text is meant for the user, and the one about settings. Nothing of
the project is imported.
"""

from __future__ import annotations


class UserError(Exception):
    """Something cannot work as it was asked for, or as things are on this machine.

    The text says which flag or file it is about and what to do, in one or two sentences. Programs
    print it without a traceback; everything else that is raised is a fault of the program.
    """


class ConfigError(UserError, ValueError):
    """A setting, or a combination of settings, that cannot work. The text names the flag and the
    way out.
    """
