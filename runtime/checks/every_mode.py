"""Checks a `Config` without TensorFlow, so that mistakes are reported at once.

`validate` returns the config with known values filled in (older spellings translated), or raises
`ConfigError` with the flag and the way out.
"""

from __future__ import annotations

import os
import signal
from dataclasses import fields
from pathlib import Path

from convoy.model.weights import onnx_file
from convoy.runtime.benchmark.plan import check_benchmark
from convoy.runtime.checks.augmentation import check_augmentation
from convoy.runtime.checks.convert import check_convert
from convoy.runtime.checks.engine import check_engine
from convoy.runtime.checks.outputs import check_outputs
from convoy.runtime.checks.resumed import begun_from
from convoy.runtime.data.class_weights import check_class_weights, check_classes_weighted
from convoy.runtime.evaluate.side_by_side import check_report, variants
from convoy.runtime.run_folder.fresh_folder import fresh_model_dir
from convoy.runtime.run_folder.history import check_runs
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.evaluation_like import check_evaluation_like
from convoy.runtime.settings.flags import (
    AUTO,
    HIGHEST_FLOAT,
    HIGHEST_LOSS_SCALE,
    HIGHEST_WHOLE,
    RANGES,
)
from convoy.runtime.settings.input_backend import check_backend
from convoy.runtime.settings.lr_find_checks import check_lr_find
from convoy.runtime.settings.lr_schedule import check_schedule, check_spans
from convoy.runtime.settings.model_checks import check_model, settle_crop
from convoy.runtime.settings.modes import APPLYING_MODES, DATA_MODES, TRAINING_MODES
from convoy.runtime.settings.recomputation import check_recompute
from convoy.runtime.trackers.workers import check_trackers
from convoy.runtime.train.profiling import profile_steps
from convoy.utils.distributed import ranks
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.files import is_url
from convoy.utils.seeds import fold_seed


def validate(config: Config) -> Config:
    """Rejects settings that cannot work.

    Raises:
        ConfigError: one sentence that names the flag.
    """
    _pattern(config)
    check_runs(config)
    _ranges(config)
    config = _nproc(_seed(config))
    if config.memory and config.mode != "summary":
        raise ConfigError(
            "--memory is for --mode summary: it foresees the memory of training with the other"
            " flags"
        )
    if config.mode in ("env", "list"):
        return config
    check_outputs(config)
    check_report(config)
    check_model(config)
    _dataset(config)
    if config.mode == "summary":
        check_recompute(config)
        return config
    if config.mode == "convert":
        check_convert(config)
        return config
    _numbers(config)
    check_engine(config)
    check_benchmark(config)
    config = settle_orientation(settle_crop(config))
    check_augmentation(config)
    if config.mode in (*DATA_MODES, "inference_benchmark"):
        check_backend(config)
    check_evaluation_like(config)
    if config.mode in APPLYING_MODES:
        if config.pretrained_from_file:
            config = _pretrained(config)
        if config.pretrained_from_file or config.mode != "inference_benchmark":
            _checkpoint(config)
    if config.mode in TRAINING_MODES:
        check_schedule(config)
        _optimisation(config)
        check_lr_find(config)
        # In elastic jobs, processes join later, when the run has already saved.
        if not ranks.elastic():
            fresh_model_dir(config)
        check_trackers(config)
        profile_steps(config)
        config = _pretrained(config)
    if config.mode in DATA_MODES:
        _data(config)  # last: the first look at many files takes minutes
    if config.report:
        variants(config)
    if config.mode == "predict":
        _predict(config)
    if config.mode == "export":
        _export(config)
    return config


def _seed(config: Config) -> Config:
    """Maps the seed to a number that every generator accepts."""
    try:
        return config.with_(seed=fold_seed(config.seed))
    except ValueError as error:
        raise ConfigError(f"--seed {error}") from error


def _pattern(config: Config) -> None:
    from convoy.model.catalog import list_archs

    if config.pattern is None:
        return
    if config.mode != "list":
        raise ConfigError("--pattern is for --mode list; --arch chooses an architecture")
    if not list_archs(config.pattern):
        raise ConfigError(
            f"--pattern {config.pattern} matches no architecture; --mode list shows all"
        )


def _nproc(config: Config) -> Config:
    """Clears --nproc in a process that it has started."""
    if config.nproc is None or config.nproc <= 1:
        return config.with_(nproc=None)
    if config.mode not in DATA_MODES:
        raise ConfigError(
            f"--nproc is for {', '.join(DATA_MODES)}; --mode {config.mode} runs in one process"
        )
    started = launched_processes()
    if started not in (1, config.nproc):
        raise ConfigError(
            f"--nproc {config.nproc} within a launch of {started} processes: leave --nproc out"
            " under horovodrun, mpirun and srun"
        )
    return config if started == 1 else config.with_(nproc=None)


def _dataset(config: Config) -> None:
    if config.dataset.lower() != "imagenet" and not config.dataset.startswith("tfds:"):
        raise ConfigError(
            f"--dataset {config.dataset} is neither ImageNet, which means any folder of TFRecords"
            " or of class folders, nor tfds:NAME, a prepared TensorFlow Dataset; both lie in"
            " --data_dir"
        )


def _ranges(config: Config) -> None:
    for f in fields(config):
        value, within = getattr(config, f.name), f.metadata["within"]
        if value is None or within is None or isinstance(value, str):  # auto, or a span with a unit
            continue
        holds, text = RANGES[within]
        if not holds(value):
            raise ConfigError(f"--{f.name} must {text}, not {value}")
        most = HIGHEST_WHOLE if isinstance(value, int) else HIGHEST_FLOAT
        if value > most:
            raise ConfigError(f"--{f.name} must be at most {most:,}, not {value}")


def _numbers(config: Config) -> None:
    check_spans(config)
    if config.train_batch_size == AUTO and (ranks.elastic() or "benchmark" in config.mode):
        raise ConfigError(
            f"--train_batch_size {AUTO} is not for elastic jobs or benchmarks: give a number"
            " (--benchmark_batch_sizes sweep measures many)"
        )
    if config.cache == "none" and (config.cache_gb is not None or config.cache_dir is not None):
        raise ConfigError("--cache_gb and --cache_dir need --cache ram or --cache disk")
    if config.cache != "disk" and config.cache_dir is not None:
        raise ConfigError("--cache_dir needs --cache disk")
    if config.xla_cache and is_url(config.xla_cache):
        raise ConfigError(f"--xla_cache {config.xla_cache} is not a local path")
    if not 0 < config.crop_area_min <= config.crop_area_max <= 1:
        raise ConfigError("--crop_area_min and --crop_area_max: 0 < min <= max <= 1 is needed")
    if not 0 < config.crop_ratio_min <= config.crop_ratio_max:
        raise ConfigError("--crop_ratio_min and --crop_ratio_max: 0 < min <= max is needed")
    if config.loss_scale != "dynamic":
        try:
            scale = float(config.loss_scale)
        except ValueError as error:
            raise ConfigError(
                f"--loss_scale is dynamic or a number, not {config.loss_scale}"
            ) from error
        if not 0 < scale <= HIGHEST_LOSS_SCALE:
            raise ConfigError(
                f"--loss_scale must be above 0 and at most {HIGHEST_LOSS_SCALE}, not"
                f" {config.loss_scale}: gradients would overflow in every step"
            )


def _optimisation(config: Config) -> None:
    clips = ("grad_clip_norm", "grad_clip_value", "grad_clip_agc")
    asked = [f"--{name}" for name in clips if getattr(config, name)]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} exclude each other: choose one kind of clipping")
    if config.bce_target_threshold is not None and config.loss != "bce":
        raise ConfigError("--bce_target_threshold has no effect without --loss bce")
    if config.optimizer_batch_size and config.grad_accum_steps:
        raise ConfigError(
            "--optimizer_batch_size and --grad_accum_steps say the same thing: give one"
        )
    check_class_weights(config)
    check_recompute(config)
    for name in ("early_stopping", "best_metric"):
        asked_for = getattr(config, name)
        if config.mode not in ("train_and_eval", "lr_find") and asked_for != getattr(Config, name):
            raise ConfigError(f"--{name} {asked_for} needs evaluations: --mode train_and_eval")
    if config.nan_rollback and config.no_checkpoints:
        raise ConfigError("--nan_rollback goes back to checkpoints: leave out --no_checkpoints")
    if config.freeze_backbone and config.layer_decay != 1:
        raise ConfigError("--layer_decay has no effect on a backbone that --freeze_backbone keeps")
    if config.nesterov and config.optimizer not in ("momentum", "lars"):
        raise ConfigError(
            f"--nesterov has no effect with --optimizer {config.optimizer}: use --optimizer"
            " momentum, or leave it out"
        )
    if config.adasum and config.gradient_predivide_factor not in (None, 1):
        raise ConfigError("--gradient_predivide_factor has no effect with --adasum")
    preempt_signals(config)


def preempt_signals(config: Config) -> list[str]:
    """Returns the names in `--preempt_signals`.

    Raises:
        ConfigError: one is not a signal that a program can handle.
    """
    text = config.preempt_signals.strip()
    names = [] if text.lower() in ("", "none") else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in signal.Signals.__members__ or name in ("SIGKILL", "SIGSTOP", "SIGINT"):
            raise ConfigError(
                f"--preempt_signals {config.preempt_signals}: {name} cannot be used; name signals"
                " such as SIGTERM and SIGUSR1, or none"
            )
    return names


def settle_orientation(config: Config) -> Config:
    """Sets `--exif_orientation` if nobody chose it.

    Documents, and weights made elsewhere, use pictures as stored.
    """
    if config.exif_orientation is not None:
        return config
    theirs = config.defaults == "documents" or config.mode in APPLYING_MODES
    return config.with_(exif_orientation="ignore" if theirs else "apply")


def _data(config: Config) -> None:
    if config.data_backend == "synthetic":
        return
    from convoy.dataloader.errors import DataError, check_bad_examples
    from convoy.runtime.data.open_split import open_split

    splits = [] if config.mode == "eval" else ["train"]
    if config.mode in ("eval", "train_and_eval"):
        splits.append("validation")
    try:
        for split in splits:
            # Its index is cached, so this is not done twice.
            source = open_split(config, split)
            training = split == "train"
            limit = config.max_bad_examples if training else config.max_bad_eval_examples
            check_bad_examples(source.damage, source.num_examples, limit, training=training)
            if training:
                check_classes_weighted(config, source)
    except DataError as error:
        raise ConfigError(str(error)) from error


def _pretrained(config: Config) -> Config:
    from convoy.model.weights import WeightFileError, inspect
    from convoy.runtime.run_folder.checkpoint import CheckpointError
    from convoy.runtime.run_folder.which_checkpoint import folder_of

    file = config.pretrained_from_file
    if config.pretrained_partial and config.pretrained_strict:
        raise ConfigError("--pretrained_partial and --pretrained_strict exclude each other")
    if config.resume_checkpoint:
        return begun_from(config)  # its own checkpoint is read instead; the file may be gone
    if file and is_url(file):
        raise ConfigError(f"--pretrained_from_file {file} is not a local path: copy it first")
    if onnx_file.is_onnx(file):
        return config  # `check_engine` has read it
    if not file:
        for flag in ("freeze_backbone", "pretrained_partial", "pretrained_strict"):
            if getattr(config, flag):
                raise ConfigError(f"--{flag} needs --pretrained_from_file, or --pretrained")
        return config
    try:
        if folder := folder_of(file):  # a run's folder means its best checkpoint
            file = str(folder)
            config = config.with_(pretrained_from_file=file)
        partial = config.pretrained_partial
        inspect(file, config.arch, padding=config.padding, partial=partial)
    except (WeightFileError, CheckpointError) as error:
        raise ConfigError(f"--pretrained_from_file: {error}") from error
    return config


def _checkpoint(config: Config) -> None:
    from convoy.runtime.checks.applied_model import check_applied
    from convoy.runtime.run_folder.checkpoint import CheckpointError
    from convoy.runtime.run_folder.which_checkpoint import folder_of, resolve

    file = config.pretrained_from_file
    try:
        if path := folder_of(file) if file else resolve(config.model_dir, config.checkpoint):
            check_applied(config, path)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def _predict(config: Config) -> None:
    from convoy.runtime.predict.find_images import STDIN, is_pattern
    from convoy.runtime.predict.outputs import predict_formats

    if config.image and config.predict_dir:
        raise ConfigError("--image labels one image and --predict_dir many: give one of them")
    where = config.predict_dir or config.image
    named = "--image" if config.image else "--predict_dir"
    if not where:
        raise ConfigError(
            "--mode predict needs --predict_dir, a folder of images (or a pattern, a .txt of paths,"
            " or - for standard input), or --image"
        )
    if config.image and Path(config.image).is_dir():
        raise ConfigError(f"--image {config.image} is a folder: label it with --predict_dir")
    predict_formats(config.predict_formats)
    for flag, path in ((named, where), ("--label_file", config.label_file)):
        if path is None or (flag == "--predict_dir" and (path == STDIN or is_pattern(path))):
            continue
        if not Path(path).exists():
            raise ConfigError(f"{flag} {path} does not exist")
        if not os.access(path, os.R_OK):
            raise ConfigError(f"{flag} {path} cannot be read")


def _export(config: Config) -> None:
    from convoy.runtime.export.formats import FORMATS, INT8, export_formats

    for name in export_formats(config.export_format):
        if name in INT8 and not config.export_samples:
            raise ConfigError(
                f"--export_format {name} is kept only if it agrees with the Keras model: leave"
                " out --export_samples 0"
            )
    folder = config.output or f"{config.model_dir}/export"
    if is_url(folder):
        raise ConfigError(
            f"exports are written to a local folder: give one with --output, not {folder}"
        )
    for name in export_formats(config.export_format):
        path = Path(folder) / FORMATS[name].file
        if path.exists() and not config.overwrite:
            raise ConfigError(
                f"{path} exists already: replace it with --overwrite, or choose another --output"
            )
