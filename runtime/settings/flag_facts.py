"""Lists flags by what their declarations say, such as those with inherited values.

The declarations are in `runtime.settings.config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import EVALUATION, MADE_IN, Fact


@cache
def inherited() -> frozenset[str]:
    """Returns the flags that modes which apply a checkpoint take from its run."""
    return frozenset(f.name for f in fields(Config) if f.metadata["scope"].inherited)


@cache
def told_on_resume() -> frozenset[str]:
    """Returns the flags whose changes a resumed run reports."""
    return frozenset(f.name for f in fields(Config) if f.metadata["scope"].told)


@cache
def of_evaluation() -> frozenset[str]:
    """Returns the flags that say how to evaluate a model; each model uses its own run's values."""
    return frozenset(f.name for f in fields(Config) if f.metadata["scope"] is EVALUATION)


@cache
def having(fact: Fact) -> tuple[str, ...]:
    """Returns the flags for which a fact holds, in order."""
    return tuple(f.name for f in fields(Config) if fact in f.metadata["facts"])


@cache
def used_in(mode: str) -> frozenset[str]:
    """Returns the flags that a mode uses."""
    return frozenset(f.name for f in fields(Config) if mode in f.metadata["modes"])


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings without paths on this machine, which are of no use elsewhere."""
    words = {f.name: f.metadata["words"] for f in fields(Config) if _is_place(f.metadata)}
    words[MADE_IN] = ()  # a key of config.yaml that is not a setting
    return {n: value for n, value in settings.items() if n not in words or value in words[n]}


def _is_place(declared: Mapping[str, Any]) -> bool:
    return declared["path"] in ("path", "paths")
