"""Turns a command line into a checked `Config`.

`runtime.command_line.parser` parses it; `runtime.settings.config.Config` declares the flags.
`runtime.command_line.sources` looks up the settings that flags name, such as a recipe's.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from convoy.runtime.checks.every_mode import preempt_signals, validate
from convoy.runtime.checks.idle import check_idle, idle_flags
from convoy.runtime.command_line.help import asked, page
from convoy.runtime.command_line.parser import build_parser, recipe_settings, refuse
from convoy.runtime.command_line.sources import Given, Sources, sources_of
from convoy.runtime.command_line.translation import translations, understand
from convoy.runtime.fitted.auto_batch import agree, look
from convoy.runtime.fitted.auto_recompute import find_recompute
from convoy.runtime.fitted.choose import Choice, choose
from convoy.runtime.settings.config import Config, settle
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.lr_schedule import check_spans, fitted_warmup, warmup_is_too_long
from convoy.runtime.settings.modes import RUN_MODES, TRAINING_MODES
from convoy.utils.distributed import ranks
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.signals import Requests
from convoy.utils.text import counted, tell

# Variables in which launchers give a process its number on its host.
_PLACES = ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def parse(argv: Sequence[str] | None = None, requests: Requests | None = None) -> Config:
    """Parses and checks the command line.

    If something is wrong, prints one message and exits with code 2.

    Args:
        argv: arguments without the program's name; None: those of this process.
        requests: gets the signals that stop this run as soon as they are known, because looking
            through a large data set takes minutes.
    """
    written = list(sys.argv[1:] if argv is None else argv)
    try:
        args = understand(written)
        if (topic := asked(args)) is not None:
            print(page(topic), end="")
            sys.exit(0)
        given, shown = _given(args, speaks_for_host(args))
        if given.speaks and (told := translations(written)):
            tell(told)
        config = _settle(given, requests)
    except ConfigError as error:
        refuse(str(error))
    if shown:
        print(config.to_yaml(), end="")
        sys.exit(0)
    return config


def _given(args: Sequence[str], speaks: bool) -> tuple[Given, bool]:
    """Parses a command line; also returns whether the settings should only be printed."""
    parser = build_parser()
    try:
        values = parser.flags(args)
    except SystemExit:
        build_parser.cache_clear()  # a parser that printed a completion script is spent
        raise
    shown = values.pop("print_config", False)
    return Given(values, parser.file, parser.written, speaks), shown


def find_batch(config: Config, args: Sequence[str] | None) -> Config:
    """Finds the batch size for `--train_batch_size auto`, and settles the other settings for it.

    All ranks must call it.

    Args:
        config: the settings so far.
        args: the command line that gave them; None if there was none.

    Raises:
        ConfigError: one sentence, which names the flag.
    """
    found, chief = agree(config), ranks.rank() == 0
    if chief:
        tell(found.line())
    if args is None:
        return config.with_(train_batch_size=found.batch)
    return _settle(_given([*understand(args), "--train_batch_size", str(found.batch)], chief)[0])


def find_recomputation(config: Config) -> Config:
    """Finds what `--recompute auto` means. All ranks must call it.

    Raises:
        TrialError: the batch does not fit into memory, whatever is computed again.
    """
    found = find_recompute(config)
    if ranks.rank() == 0:
        tell(found.line())
    return config.with_(recompute=found.how)


def speaks_for_host(args: Sequence[str] = ()) -> bool:
    """Returns whether this process prints what all processes on its host would print alike.

    Args:
        args: the command line. Processes started by --nproc leave printing to the one that started
            them.
    """
    if launched_processes() == 1:
        return True  # variables are left over from another job
    if any(arg == "--nproc" or arg.startswith("--nproc=") for arg in args):
        return False
    return all(os.environ.get(name, "0") == "0" for name in _PLACES)


def configure(config: str | os.PathLike | None = None, **settings: Any) -> Config:
    """Returns the settings of one run, settled and checked as on the command line.

    They include an architecture's defaults, `recipe`, and, in modes that apply a checkpoint, the
    settings of its run.

    Args:
        config: a YAML recipe, as for `--config`; the settings override it.
        **settings: flags by name, such as `arch="resnet50"`; see `runtime.settings.config.Config`.

    Raises:
        ConfigError: one sentence, which names the flag.

    Example:
        >>> configure(mode="summary", arch="resnet50").weight_decay
        0.0001
    """
    written = {} if config is None else recipe_settings(os.fspath(config))
    values = written | dict(settle(name, value) for name, value in settings.items())
    given = Given(values, os.fspath(config or ""), written, speaks_for_host())
    settled = _settle(given)
    if settled.train_batch_size != AUTO or settled.mode not in TRAINING_MODES:
        return settled
    if launched_processes() > 1:
        raise ConfigError(
            f"--train_batch_size {AUTO} works only on the command line if several processes"
            " train: give a number"
        )
    found = look(settled, 1, 1)
    tell(found.line())
    return _settle(replace(given, values=values | {"train_batch_size": found.batch}))


def _settle(given: Given, requests: Requests | None = None) -> Config:
    """Merges the sources of settings, and checks the result.

    Args:
        given: the user's settings.
        requests: as for `parse`.

    Raises:
        ConfigError: one sentence, which names the flag and the source of its value.
    """
    sources = sources_of(given)
    if requests is not None:
        config = sources.config()
        requests.hear(preempt_signals(config) if config.mode in RUN_MODES else ())
        requests.requeue = config.requeue
    return _checked(sources)


def _checked(sources: Sources) -> Config:
    """Returns the settings with what fits the data and the run's length, once they pass all checks.

    Raises:
        ConfigError: one sentence, which names the flag and the source of its value.
    """
    given, layers = sources.given, sources.layers
    config, chosen = sources.config(), Choice()
    try:
        check_idle(config, given.of_flags())
        fitted = _fit_warmup(config, layers)
        settled = validate(fitted)
        chosen = choose(settled, {name for layer in layers for name in layer})
        if chosen.values:
            config = config.with_(**chosen.values)
            fitted = _fit_warmup(config, layers)
            settled = validate(fitted)
    except ConfigError as error:
        text = _with_sources(str(error), config, sources.words(chosen))
        raise ConfigError(text) from error
    to_find = settled.train_batch_size == AUTO and settled.mode in TRAINING_MODES
    if given.speaks and not to_find:  # else these lines follow the number
        for line in idle_flags(config, given.of_flags(), sources.without_flags()):
            tell(line)
        if fitted is not config:
            tell(
                f"convoy: a warm-up of {_length(config.warmup_epochs)} does not fit into"
                f" {counted(config.max_epochs, 'epoch')}: shortened to"
                f" {_length(fitted.warmup_epochs)} (--warmup_epochs)"
            )
        if chosen.values and "defaults" not in chosen.values:
            print(chosen.text(), file=sys.stderr)
    return settled


def _length(span: float | str) -> str:
    """Returns a warm-up's length for a message: in epochs, or as written, such as 500steps."""
    return span if isinstance(span, str) else counted(span, "epoch")


def _fit_warmup(config: Config, layers: Sequence[Mapping[str, Any]]) -> Config:
    """Shortens a warm-up that nobody asked for in a run of this length.

    Args:
        config: the settings.
        layers: sources of settings, in rising order of precedence. A warm-up set by the source that
            sets the run's length, or by a later one, does not change; `check_schedule` may reject
            it.
    """
    if config.mode not in TRAINING_MODES:
        return config
    check_spans(config)
    if not warmup_is_too_long(config):
        return config
    warmup, length = (
        max((i for i, layer in enumerate(layers) if names & layer.keys()), default=-1)
        for names in ({"warmup_epochs"}, {"max_epochs", "steps_per_epoch"})
    )
    if warmup >= length:
        return config
    return config.with_(warmup_epochs=fitted_warmup(config))


def _with_sources(text: str, config: Config, sources: Mapping[str, str]) -> str:
    """Adds to an error the sources of the values that it names, except those given as flags."""
    for name in dict.fromkeys(re.findall(r"--(\w+)", text)):
        value = getattr(config, name, None)
        if value is None or f"--{name} {value}" not in text:
            continue
        source = sources.get(name, "the default, as none was given")
        if source:
            text += f" (--{name} {value} is {source})"
    return text
