"""Looks up the settings of all sources that a command line names.

Each source overrides the ones before it: defaults of the architecture's family, values that fit the
data (`fitted/choose.py`), the recipe's file, the run whose checkpoint is applied, the recipe's
machine and mode, `--config`, flags. The source of each value is kept for error messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from convoy.model.weights import onnx_file
from convoy.runtime.command_line.pretrained import arch_of_run, settle_pretrained
from convoy.runtime.command_line.translation import unknown_mode
from convoy.runtime.data.open_split import for_these_data
from convoy.runtime.fitted.choose import Choice, settings_of_the_run
from convoy.runtime.settings.config import Config, defaults
from convoy.runtime.settings.evaluation_like import settings_like
from convoy.runtime.settings.flag_facts import inherited
from convoy.runtime.settings.modes import (
    APPLYING_MODES,
    ENGINE_MODES,
    MODE_ALIASES,
    MODES,
    RUN_MODES,
)
from convoy.runtime.settings.paths_of_runs import load_run_config, moved_paths
from convoy.runtime.settings.recipes import Launch, lookup, parse_name
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote, is_url
from convoy.utils.optional import known


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


@dataclass(frozen=True)
class Sources:
    """Settings by flag and source; each source overrides those before it.

    Attributes:
        usual: defaults of the architecture's family, and of the mode.
        recipe: the recipe's file.
        run: the run whose checkpoint is applied.
        launch: the recipe's machine and mode.
        asked: the user's, with names in full.
        origin: what `run` is, in words.
        given: the user's, as written.
    """

    usual: Mapping[str, Any]
    recipe: Mapping[str, Any]
    run: Mapping[str, Any]
    launch: Mapping[str, Any]
    asked: Mapping[str, Any]
    origin: str
    given: Given

    @property
    def layers(self) -> tuple[Mapping[str, Any], ...]:
        """Returns the sources that someone chose for this launch, in rising order."""
        return self.recipe, self.launch, self.given.of_file(), self.given.of_flags()

    def config(self) -> Config:
        """Returns the settings that count."""
        return Config(**{**self._below, **self.asked})

    def without_flags(self) -> Config:
        """Returns the settings as they would be without the flags of the command line."""
        return Config(**{**self._below, **self.given.of_file(), "mode": self.asked["mode"]})

    @property
    def _below(self) -> dict[str, Any]:
        return {**self.usual, **self.recipe, **self.run, **self.launch}

    def words(self, chosen: Choice) -> dict[str, str]:
        """Returns the source of each value in words, by flag; "" for flags of the command line."""
        return (
            dict.fromkeys(chosen.values, chosen.origin)
            | dict.fromkeys(
                {**self.recipe, **self.launch}, f"from --recipe {self.asked.get('recipe')}"
            )
            | dict.fromkeys(self.run, self.origin)
            | dict.fromkeys(self.given.of_file(), f"from {self.given.file}")
            | dict.fromkeys(self.given.of_flags(), "")
        )


def sources_of(given: Given) -> Sources:
    """Looks up the settings of all sources that the user's settings name.

    Raises:
        ConfigError: a source or a name is unknown.
    """
    given = given.at_its_place()
    asked, recipe, launch = given.values, {}, {}
    if asked.get("recipe"):
        found = _launch(asked["recipe"], asked.get("nproc"))
        recipe, launch = found.recipe.settings, found.launch
        asked = asked | {"recipe": found.name}  # with every part named
    here = recipe | launch | asked
    asked = asked | {"mode": _mode(here.get("mode", Config.mode))} | _arch(here)
    asked = asked | _pretrained(here | asked, given.speaks)
    asked = asked | _exported(here | asked)
    first = Config(**(defaults(Config.arch) | here | asked))
    run, origin = _settings_of_run(first)
    run = for_these_data(run, asked)
    run = run | _evaluation_like(first, asked, run)
    usual = defaults((recipe | run | launch | asked).get("arch", Config.arch))
    if first.mode in APPLYING_MODES and first.pretrained_from_file:
        usual["model_dir"] = "."  # weights from a file have no run's folder for the results
    return Sources(usual, recipe, run, launch, asked, origin, given)


def _pretrained(here: dict[str, Any], speaks: bool) -> dict[str, Any]:
    """Returns what `--pretrained` means, as settings: the weight file, and perhaps the model's."""
    if not here.get("pretrained"):
        return {}
    found = {}
    if here["mode"] in APPLYING_MODES and "model_dir" in here and "arch" not in here:
        found = arch_of_run(here["model_dir"])
    first = Config(**(defaults(Config.arch) | here | found))
    return found | settle_pretrained(first, speaks)


def _exported(here: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ONNX file in the folder of an export that the flags name, as a setting."""
    named = here.get("pretrained_from_file") or here.get("model_dir")
    if here["mode"] not in ENGINE_MODES or not named or is_url(named):
        return {}
    file = onnx_file.in_folder(named)
    return {"pretrained_from_file": str(file)} if file else {}


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
    again. A resumed run takes its architecture and the place of its data here; `fitted/choose.py`
    keeps the rest.
    """
    if first.mode == "report":
        return _settings_of_report(first)
    if first.mode in RUN_MODES and first.resume_checkpoint:
        before = settings_of_the_run(first)
        origin = f"that of the run in --model_dir {first.model_dir}"
        kept = {"arch": before.arch, "data_dir": before.data_dir} if before else {}
        return kept, origin if before else ""
    if first.mode not in (*APPLYING_MODES, "convert"):
        return {}, ""
    from convoy.runtime.run_folder.checkpoint import CheckpointError
    from convoy.runtime.run_folder.which_checkpoint import folder_of, resolve

    file = first.pretrained_from_file
    try:
        path = folder_of(file) if file else resolve(first.model_dir, first.checkpoint)
    except CheckpointError:
        return {}, ""  # `validate` reports it for modes that need one
    if path is None:
        found, origin = _settings_of_file(first), f"what {file} says"
    else:
        found, origin = _inherited(path)
    if first.mode == "convert":  # the file says how to build its model; a run's flags do not matter
        found = {name: value for name, value in found.items() if name == "arch"}
    return found, origin


def _settings_of_file(first: Config) -> dict[str, Any]:
    """Returns the settings that a weight file of any kind implies."""
    from convoy.model.weights.origin import how_applied

    said = how_applied(known(first.pretrained_from_file))
    if first.crop_padding != Config.crop_padding:
        said.pop("crop_pct", None)  # it would override the requested padding
    return {name: value for name, value in said.items() if name != "class_names"}


def _evaluation_like(
    first: Config, asked: Mapping[str, Any], run: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings that `--evaluation_like` implies."""
    if first.evaluation_like is None:
        return {}
    from convoy.runtime.run_folder.which_checkpoint import folder_of

    file = first.pretrained_from_file or ""
    if onnx_file.is_onnx(file) or (file and folder_of(file) is not None):
        file = ""
    arch = {"arch": first.arch, **run, **asked}["arch"]
    found = settings_like(first.evaluation_like, arch, run, Path(file).name)
    if "crop_padding" in asked:
        found["crop_pct"] = None  # it would override the padding
    return found


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
