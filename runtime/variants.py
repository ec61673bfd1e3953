"""What an evaluation report sets side by side: checkpoints × weights × image sizes.

No TensorFlow: what does not fit is refused before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.checkpoint import CheckpointError, resolve
from runtime.config import Config, ConfigError, defaults, load_config
from utils.files import path_of

MOST = 8
"""Evaluations in a report; there are as many colours."""
# What a run was evaluated with, which its checkpoint is evaluated with here too.
OWN = ("arch", "image_size", "eval_crop", "crop_padding", "interpolation")


@dataclass
class Variant:
    """One evaluation of a report.

    Attributes:
        name: what sets it apart from the others, such as "ema, 288 px".
        config: as for a `--mode eval` of it alone.
    """

    name: str
    config: Config


def check_report(config: Config) -> None:
    """Refuses flags of a report that do not fit; reads no checkpoint.

    Raises:
        ConfigError: with the flag's name.
    """
    from runtime.plots import check_plots

    if not config.report:
        for flag in ("report_dir", "report_checkpoints", "report_image_sizes", "eval_labels"):
            if getattr(config, flag) is not None:
                raise ConfigError(f"--{flag} has no effect without --mode eval --report")
        if config.weights == "both":
            raise ConfigError("--weights both is for --mode eval --report: choose raw or ema")
        return
    if config.mode != "eval":
        raise ConfigError(f"--report is for --mode eval, not for --mode {config.mode}")
    if config.data_backend == "synthetic":
        raise ConfigError("--report needs images, and --data_backend synthetic makes them up")
    check_plots("--report")
    if config.eval_labels:
        from runtime.relabel import read_label_file

        read_label_file(config.eval_labels)


def variants(config: Config) -> list[Variant]:
    """What `--report_checkpoints`, `--weights` and `--report_image_sizes` ask for; one at least.

    Raises:
        ConfigError: there are too many, or a size does not fit.
        CheckpointError: a checkpoint is not there.
    """
    from runtime.validate import check_model, settle_crop  # which checks reports with this

    bases = [("", config), *_others(config)]
    if len(bases) > 1:
        bases[0] = (_label(config.pretrained_from_file or config.checkpoint), config)
    weights = ["raw", "ema"] if config.weights == "both" else [config.weights]
    sizes = _sizes(config) or [None]
    found = []
    for name, base in bases:
        for kind in weights:
            for size in sizes:
                one = base.with_(weights=kind)
                parts = [name, kind if len(weights) > 1 else ""]
                if size is not None:
                    one = one.with_(image_size=size)
                    parts.append(f"{size} px")
                check_model(one)
                found.append(Variant(", ".join(filter(None, parts)), settle_crop(one)))
    if len(found) > MOST:
        raise ConfigError(
            f"{len(found)} evaluations side by side are more than the {MOST} that fit into a"
            " report: give fewer --report_checkpoints or --report_image_sizes, or not --weights"
            " both"
        )
    return found


def _sizes(config: Config) -> list[int]:
    text = config.report_image_sizes
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--report_image_sizes {text}: give pixels a side, such as 224,288")
    if len(set(parts)) < len(parts):
        raise ConfigError(f"--report_image_sizes {text} names a size twice")
    return [int(part) for part in parts]


def _others(config: Config) -> list[tuple[str, Config]]:
    """Each of `--report_checkpoints`, with the settings of its own run where no flag replaced those
    of the first.
    """
    if config.report_checkpoints is None:
        return []
    wanted = [part.strip() for part in config.report_checkpoints.split(",") if part.strip()]
    labels = [_label(which) for which in (config.checkpoint, *wanted)]
    if not wanted or len(set(labels)) < len(labels):
        raise ConfigError(
            f"--report_checkpoints {config.report_checkpoints}: name checkpoints beside"
            f" --checkpoint {config.checkpoint}, each once: last, folders checkpoints/step-…, or"
            " other runs' folders"
        )
    first = _settings(None if config.pretrained_from_file else _resolve(config, config.checkpoint))
    first = first or defaults(config.arch)
    kept = {name for name in OWN if getattr(config, name) != first[name]}
    found = []
    for which in wanted:
        path = _resolve(config, which)
        own = {k: v for k, v in _settings(path).items() if k in OWN and k not in kept}
        own |= {"checkpoint": str(path), "pretrained_from_file": None}
        found.append((_label(which), config.with_(**own)))
    return found


def _resolve(config: Config, which: str) -> Any:
    """The checkpoint that is meant: best, last, a checkpoint's folder, or a run's, whose best it
    is.
    """
    try:
        if which not in ("best", "last") and (path_of(which) / "checkpoints").is_dir():
            return resolve(which)
        return resolve(config.model_dir, which)
    except CheckpointError as error:
        raise ConfigError(str(error).replace("--checkpoint ", "--report_checkpoints ")) from error


def _settings(path: Any) -> dict[str, Any]:
    if path is None:
        return {}
    settings = load_config(path / "config.yaml")
    return {name: getattr(settings, name) for name in OWN}


def _label(which: str) -> str:
    """A checkpoint's name in the report: the end of its path, so far as it tells something."""
    return "/".join(which.rstrip("/").replace("/checkpoints/", "/").split("/")[-2:])
