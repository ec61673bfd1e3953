"""What the flags' declarations say of several flags at once: whose value is inherited, which are
places, and so on. The declarations are in `runtime.settings.config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import EVALUATION, MADE_IN


@cache
def inherited() -> frozenset[str]:
    """Flags that modes which apply a checkpoint take from its run."""
    return frozenset(f.name for f in fields(Config) if f.metadata["scope"].inherited)


@cache
def told_on_resume() -> frozenset[str]:
    """Flags of which a resumed run tells that they have changed."""
    return frozenset(f.name for f in fields(Config) if f.metadata["scope"].told)


@cache
def of_evaluation() -> frozenset[str]:
    """Flags that say how a model is evaluated: each of several as its own run says."""
    return frozenset(f.name for f in fields(Config) if f.metadata["scope"] is EVALUATION)


@cache
def on_model_card() -> tuple[str, ...]:
    """Flags that a model card shows, in their order."""
    return tuple(f.name for f in fields(Config) if f.metadata["on_card"])


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the paths on this machine, with which readers elsewhere can do nothing."""
    words = {f.name: f.metadata["words"] for f in fields(Config) if _is_place(f.metadata)}
    words[MADE_IN] = ()  # which a run's config.yaml has beside the settings
    return {n: value for n, value in settings.items() if n not in words or value in words[n]}


def _is_place(declared: Mapping[str, Any]) -> bool:
    return declared["path"] in ("path", "paths")
