"""Turns a command line into a checked `Config`.

`runtime.command_line.parser` parses it; `runtime.settings.config.Config` declares the flags.
Settings come from these sources, each of which overrides the ones before it: defaults of the
architecture's family, values that fit the data (`fitted/choose.py`), the recipe's file, the run
whose checkpoint is applied, the recipe's machine and mode, `--config`, flags. The source of each
value is kept for error messages.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from convoy.runtime.checks.convert import check_flags
from convoy.runtime.checks.every_mode import preempt_signals, validate
from convoy.runtime.command_line.help import asked, page
from convoy.runtime.command_line.other_names import translations, understand, unknown_mode
from convoy.runtime.command_line.parser import build_parser, recipe_settings, refuse
from convoy.runtime.command_line.pretrained import arch_of_run, settle_pretrained
from convoy.runtime.data.open_split import for_these_data
from convoy.runtime.fitted.auto_batch import agree, look
from convoy.runtime.fitted.choose import Choice, choose
from convoy.runtime.settings.config import MODE_ALIASES, MODES, Config, defaults, settle
from convoy.runtime.settings.flag_facts import inherited
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.learning_rate import check_spans, fitted_warmup, warmup_is_too_long
from convoy.runtime.settings.modes import APPLYING_MODES, RUN_MODES, TRAINING_MODES
from convoy.runtime.settings.paths_of_runs import load_run_config, moved_paths
from convoy.runtime.settings.recipes import Launch, lookup, parse_name
from convoy.utils.distributed import ranks
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote
from convoy.utils.signals import Requests
from convoy.utils.text import counted, tell

# Variables in which launchers give a process its number on its host.
_PLACES = ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


@dataclass(frozen=True)
class Given:
    """The settings that a user gave.

    Attributes:
        values: by flag, from `--config` and from flags.
        file: the path of `--config`.
        written: the settings in that file, some of which flags may override.
        speaks: whether this process prints messages about settings; see `speaks_for_host`.
    """

    values: dict[str, Any]
    file: str = ""
    written: Mapping[str, Any] = field(default_factory=dict)
    speaks: bool = True

    def of_file(self) -> dict[str, Any]:
        """Returns the values that come from the file."""
        return {n: v for n, v in self.values.items() if n in self.written and self.written[n] == v}

    def at_its_place(self) -> Given:
        """Returns a copy with resolved paths, if the file is a run's own `config.yaml`."""
        if not self.file:
            return self
        resumes = bool(self.values.get("resume_checkpoint"))
        moved = moved_paths(self.file, self.written, resumes)
        moved = {name: value for name, value in moved.items() if name in self.of_file()}
        return replace(self, values=self.values | moved, written={**self.written, **moved})

    def of_flags(self) -> dict[str, Any]:
        """Returns the values that come from flags."""
        return {name: v for name, v in self.values.items() if name not in self.of_file()}


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
    values = parser.parse_args(list(args), env=False, defaults=False).as_dict()
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
    given = given.at_its_place()
    sources = _sources(given)
    if requests is not None:
        config = sources.config()
        requests.hear(preempt_signals(config) if config.mode in RUN_MODES else ())
        requests.requeue = config.requeue
    return _checked(sources, given)


@dataclass(frozen=True)
class _Sources:
    """Settings by flag and source; each source overrides those before it.

    Attributes:
        usual: defaults of the architecture's family, and of the mode.
        recipe: the recipe's file.
        run: the run whose checkpoint is applied.
        launch: the recipe's machine and mode.
        asked: the user's, with names in full.
        origin: what `run` is, in words.
    """

    usual: Mapping[str, Any]
    recipe: Mapping[str, Any]
    run: Mapping[str, Any]
    launch: Mapping[str, Any]
    asked: Mapping[str, Any]
    origin: str

    def config(self) -> Config:
        """Returns the settings that count."""
        return Config(**{**self.usual, **self.recipe, **self.run, **self.launch, **self.asked})

    def words(self, given: Given, chosen: Choice) -> dict[str, str]:
        """Returns the source of each value in words, by flag; "" for flags of the command line."""
        return (
            dict.fromkeys(chosen.values, chosen.origin)
            | dict.fromkeys(
                {**self.recipe, **self.launch}, f"from --recipe {self.asked.get('recipe')}"
            )
            | dict.fromkeys(self.run, self.origin)
            | dict.fromkeys(given.of_file(), f"from {given.file}")
            | dict.fromkeys(given.of_flags(), "")
        )


def _sources(given: Given) -> _Sources:
    """Looks up the settings of all sources that the user's settings name.

    Raises:
        ConfigError: a source or a name is unknown.
    """
    asked, recipe, launch = given.values, {}, {}
    if asked.get("recipe"):
        found = _launch(asked["recipe"], asked.get("nproc"))
        recipe, launch = found.recipe.settings, found.launch
        asked = asked | {"recipe": found.name}  # with every part named
    known = recipe | launch | asked
    asked = asked | {"mode": _mode(known.get("mode", Config.mode))} | _arch(known)
    known |= asked
    asked = asked | _pretrained(known, given.speaks)
    first = Config(**(defaults(Config.arch) | known | asked))
    run, origin = _settings_of_run(first)
    run = for_these_data(run, asked)
    usual = defaults((recipe | run | launch | asked).get("arch", Config.arch))
    if first.mode in APPLYING_MODES and first.pretrained_from_file:
        usual["model_dir"] = "."  # weights from a file have no run's folder for the results
    return _Sources(usual, recipe, run, launch, asked, origin)


def _pretrained(known: dict[str, Any], speaks: bool) -> dict[str, Any]:
    """Returns what `--pretrained` means, as settings: the weight file, and perhaps the model's."""
    if not known.get("pretrained"):
        return {}
    found = {}
    if known["mode"] in APPLYING_MODES and "model_dir" in known and "arch" not in known:
        found = arch_of_run(known["model_dir"])
    first = Config(**(defaults(Config.arch) | known | found))
    return found | settle_pretrained(first, speaks)


def _checked(sources: _Sources, given: Given) -> Config:
    """Returns the settings with what fits the data and the run's length, once they pass all checks.

    Raises:
        ConfigError: one sentence, which names the flag and the source of its value.
    """
    layers = (sources.recipe, sources.launch, given.of_file(), given.of_flags())
    config, chosen = sources.config(), Choice()
    try:
        if config.mode == "convert":
            check_flags(given.of_flags())
        fitted = _fit_warmup(config, layers)
        settled = validate(fitted)
        chosen = choose(settled, {name for layer in layers for name in layer})
        if chosen.values:
            config = config.with_(**chosen.values)
            fitted = _fit_warmup(config, layers)
            settled = validate(fitted)
    except ConfigError as error:
        text = _with_sources(str(error), config, sources.words(given, chosen))
        raise ConfigError(text) from error
    if given.speaks and settled.train_batch_size != AUTO:  # else these lines follow the number
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


def _arch(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the architecture in our spelling, as a setting: `resnet50` for `ResNet50`."""
    from convoy.model.catalog import list_archs

    written = settings.get("arch", "")
    return {"arch": written.lower()} if written.lower() in list_archs() else {}


def _mode(written: str) -> str:
    mode = MODE_ALIASES.get(written, written)
    if mode not in MODES:
        raise ConfigError(unknown_mode(written))
    return mode


def _launch(recipe: str, nproc: int | None) -> Launch:
    """Looks up `--recipe` for the number of processes that were or will be started."""
    parts, started = parse_name(recipe), nproc or launched_processes()
    if parts.setdefault("gpus", started) != started:
        raise ConfigError(
            f"--recipe {recipe} is for {parts['gpus']} processes, and {started} were started: use"
            f" --nproc {parts['gpus']}, or leave {parts['gpus']}x out to keep the batch"
        )
    return lookup(**parts)


def _settings_of_run(first: Config) -> tuple[dict[str, Any], str]:
    """Returns the settings of a finished run for modes that apply its checkpoint, and their origin.

    So `--mode eval` and `--mode predict` need neither the architecture nor the evaluation crop
    again.
    """
    mode = first.mode
    if mode == "report":
        return _settings_of_report(first)
    if mode not in (*APPLYING_MODES, "convert"):
        return {}, ""
    from convoy.runtime.run_folder.checkpoint import CheckpointError, folder_of, resolve

    file = first.pretrained_from_file
    try:
        path = folder_of(file) if file else resolve(first.model_dir, first.checkpoint)
    except CheckpointError:
        return {}, ""  # `validate` reports it for modes that need one
    if path is None:
        found, origin = _settings_of_file(first), f"what {file} says"
    else:
        found, origin = _inherited(path)
    if mode == "convert":  # the file says how to build its model; a run's flags do not matter
        found = {name: value for name, value in found.items() if name == "arch"}
    return found, origin


def _settings_of_file(first: Config) -> dict[str, Any]:
    """Returns the settings that a weight file of any kind implies."""
    from convoy.model.weights.origin import how_applied

    said = how_applied(first.pretrained_from_file)
    if first.crop_padding != Config.crop_padding:
        said.pop("crop_pct", None)  # it would override the requested padding
    return {name: value for name, value in said.items() if name != "class_names"}


def _settings_of_report(first: Config) -> tuple[dict[str, Any], str]:
    """Returns the settings of the run's folder, because a report needs no checkpoint."""
    from convoy.utils.files import path_of

    try:
        return _inherited(path_of(first.model_dir))
    except ConfigError:
        return {}, ""  # `validate` reports it


def _inherited(folder: Path | Remote) -> tuple[dict[str, Any], str]:
    config, origin = load_run_config(folder / "config.yaml")
    return {n: value for n, value in asdict(config).items() if n in inherited()}, origin
