"""Declares every flag once: name, type, default, group, scope, help and range.

The command line (`runtime/command_line/cli.py`), the YAML recipes and the `config.yaml` that each
run writes all follow from the fields of `Config`. This module imports no TensorFlow.

Defaults are the EfficientNet document's. For architectures of another family, `FAMILY_DEFAULTS`
replaces those that its own document sets differently. A recipe overrides both, and a flag overrides
the recipe.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_type_hints

from convoy.runtime.settings.config_text import config_text
from convoy.runtime.settings.defaults_by_family import FAMILY_DEFAULTS
from convoy.runtime.settings.flags import (
    COMPUTE,
    EVALUATION,
    LAUNCH,
    MACHINE,
    MADE_IN,
    RESULT,
    TRAINING,
    Fact,
    Group,
)
from convoy.runtime.settings.flags import flag as _flag
from convoy.runtime.settings.modes import (
    ALL_MODES,
    APPLYING_MODES,
    BENCHMARK_MODES,
    COMPUTING_MODES,
    DATA_MODES,
    ENGINE_MODES,
    FOLDER_MODES,
    MODEL_MODES,
    MODES,
    READING_MODES,
    SET_UP_MODES,
    SHARED_MODES,
    TRAINING_MODES,
)
from convoy.runtime.settings.other_names import meant_by
from convoy.runtime.settings.settings_file import read_settings
from convoy.runtime.settings.values import Kind, ValueRefused
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote
from convoy.utils.optim.lr_scaling_and_decay import ScheduleName
from convoy.utils.optim.optimizers import OptimizerName
from convoy.utils.signals import USUAL
from convoy.utils.text import TextError

__all__ = ["MADE_IN", "Config", "ConfigError", "defaults", "kinds", "load_config", "settle"]

RUN = Group("Run", TRAINING_MODES)
MODEL = Group("Model", (*TRAINING_MODES, "report", "summary", "inference_benchmark"))
DATA = Group("Data", READING_MODES)
AUG = Group("Augmentation", (*TRAINING_MODES, "report"))
OPT = Group("Optimisation", TRAINING_MODES)
PREC = Group("Precision and speed", TRAINING_MODES)
CKPT = Group("Checkpoints", TRAINING_MODES)
EVAL = Group("Evaluation report", ("eval",))
PRED = Group("Prediction", ("predict",))
BENCH = Group("Benchmarks", BENCHMARK_MODES)
LOG = Group("Logging", TRAINING_MODES)
_USING_WEIGHTS = (*APPLYING_MODES, "convert", "report")
_LOADING_FILES = (*TRAINING_MODES, *APPLYING_MODES, "convert")
_NOT_EXPORT = tuple(name for name in COMPUTING_MODES if name != "export")  # it computes in float32

EvaluationLike: TypeAlias = Literal["torchvision", "timm", "keras", "documents"]


@dataclass(frozen=True)
class Config:
    """The complete settings of one run. Read-only: make another with `dataclasses.replace`."""

    # fmt: off
    mode: str = _flag(RUN, COMPUTE, "train_and_eval", f"what to do {{{', '.join(MODES)}}}", modes=ALL_MODES)
    recipe: str | None = _flag(RUN, MACHINE, None, "published settings by model, machine and precision: resnet50/A100/AMP/90E (docs/recipes.md)", modes=ALL_MODES, facts=Fact.CARD)
    defaults: Literal["data", "documents"] = _flag(RUN, TRAINING, "data", "source of settings that you leave out: the data, if it is small, or NVIDIA's documents (docs/defaults.md)")
    nproc: int | None = _flag(RUN, LAUNCH, None, "processes to start on this machine, one per GPU", unset="1, unless horovodrun, mpirun or srun starts more", within="[1, 4096]", modes=DATA_MODES)
    pattern: str | None = _flag(RUN, MACHINE, None, "--mode list: show only architectures whose name matches, such as 'resnet*'", modes=("list",))
    memory: bool = _flag(RUN, LAUNCH, False, "--mode summary: foresee the memory of a training step, in place of the layers", modes=("summary",))
    model_dir: str = _flag(RUN, LAUNCH, "/workspace/output", "folder of the run, or a URL such as gs://bucket/run",
                           unset="/workspace/output; the current folder if weights come from a file", path="path", modes=FOLDER_MODES, facts=Fact.LABEL)
    max_epochs: int = _flag(RUN, TRAINING, 300, "epochs to train, and the length of the learning-rate schedule", within=">= 1", modes=(*TRAINING_MODES, "report"), facts=Fact.CARD | Fact.RATE)
    run_epochs: int | None = _flag(RUN, LAUNCH, None, "epochs to train in this launch; the schedule keeps its length", within=">= 1")
    steps_per_epoch: int | None = _flag(RUN, TRAINING, None, "weight updates per epoch", unset="as many as use every image once", within=">= 1", modes=(*TRAINING_MODES, "inference_benchmark"), facts=Fact.RATE)
    num_epochs_between_eval: int = _flag(RUN, TRAINING, 1, "epochs between evaluations; the last epoch is always evaluated", within=">= 1")
    early_stopping: int | None = _flag(RUN, TRAINING, None, "evaluations without improvement after which training stops", unset="never", within=">= 1")
    best_metric: Literal["top1", "loss", "macro_f1"] = _flag(RUN, TRAINING, "top1", "metric that decides which checkpoint is the best")
    prof: int | None = _flag(RUN, LAUNCH, None, "steps after which to stop; in benchmarks: iterations to time (100)", within=">= 1", modes=(*DATA_MODES, "inference_benchmark"))
    seed: int = _flag(RUN, TRAINING, 0, "random seed of weights, data order, augmentation and dropout", modes=(*TRAINING_MODES, "report", "inference_benchmark"), facts=Fact.CARD)
    watchdog_seconds: float = _flag(RUN, MACHINE, 20.0, "seconds after which the job ends if one of several processes hangs; 0: never", within=">= 0", modes=SHARED_MODES)
    data_wait_seconds: float = _flag(RUN, MACHINE, 600.0, "seconds after which the job ends if a process waits for its data", within="> 0", modes=SHARED_MODES)
    intraop_threads: int | None = _flag(RUN, LAUNCH, None, "threads within one TensorFlow operation", unset="all cores", within="[1, 4096]", modes=SET_UP_MODES)
    interop_threads: int | None = _flag(RUN, LAUNCH, None, "TensorFlow operations that run in parallel", unset="all cores", within="[1, 4096]", modes=SET_UP_MODES)

    arch: str = _flag(MODEL, EVALUATION, "efficientnet-b0", "architecture; --mode list shows all", modes=SET_UP_MODES, facts=Fact.MODEL)
    num_classes: int | None = _flag(MODEL, TRAINING, None, "number of classes", unset="the data's", within=">= 2", modes=MODEL_MODES, facts=Fact.MODEL)
    image_size: int | None = _flag(MODEL, EVALUATION, None, "height and width of images in pixels", unset="the architecture's", modes=SET_UP_MODES, facts=Fact.CARD)
    dropout: float | None = _flag(MODEL, TRAINING, None, "dropout rate before the classifier", unset="the architecture's", within="[0, 1)", facts=Fact.CARD)
    stochastic_depth: float | None = _flag(MODEL, TRAINING, None, "drop rate of the last residual branch; rises linearly from 0 at the first", ("drop_connect_rate",),
                                           unset="the architecture's", within="[0, 1)", facts=Fact.CARD)
    activation: str | None = _flag(MODEL, TRAINING, None, "activation function", unset="the architecture's: swish, relu6 or relu", modes=MODEL_MODES, facts=Fact.MODEL)
    batch_norm: Literal["default", "syncbn"] = _flag(MODEL, TRAINING, "default", "batch-norm statistics: of each process, or of all together (syncbn)", facts=Fact.CARD)
    bn_momentum: float | None = _flag(MODEL, TRAINING, None, "batch-norm momentum as Keras defines it: 0.99 averages over 100 steps", unset="the architecture's", within="[0, 1)")
    bn_epsilon: float | None = _flag(MODEL, TRAINING, None, "batch-norm epsilon", unset="the architecture's", within="> 0", modes=MODEL_MODES, facts=Fact.MODEL)
    weight_init: Literal["fan_in", "fan_out"] = _flag(MODEL, TRAINING, "fan_out", "mode of the weight initialiser")
    zero_gamma: bool = _flag(MODEL, TRAINING, False, "ResNets: start the last batch norm of each block at 0")
    padding: Literal["same", "symmetric"] | None = _flag(MODEL, TRAINING, None, "padding at stride 2: TensorFlow's (same) or PyTorch's (symmetric)", unset="the architecture's", modes=(*MODEL_MODES, "convert"), facts=Fact.MODEL)

    data_dir: str = _flag(DATA, TRAINING, "/data/", "data: folders train/ and val/, class folders, TFRecords, or a CSV file (docs/data.md)", path="path")
    dataset: str = _flag(DATA, TRAINING, "ImageNet", "ImageNet: any data in data_dir; or tfds:NAME[/CONFIG][:VERSION], prepared by TensorFlow Datasets")
    first_label: int | None = _flag(DATA, TRAINING, None, "TFRecords: number of the first class; TF-Slim counts from 0", unset="1, or 0 for TensorFlow Datasets", within=">= 0")
    validation_fraction: float | None = _flag(DATA, TRAINING, None, "fraction of each class to hold out for validation, if the data has no such split", within="(0, 1)", facts=Fact.DIVISION)
    validation_seed: int = _flag(DATA, TRAINING, 0, "seed that decides which images are held out, independent of --seed", facts=Fact.DIVISION)
    data_backend: Literal["tfdata", "synthetic", "dali-cpu", "dali-gpu"] | None = _flag(
        DATA, COMPUTE, None, "library that reads and decodes images; synthetic: random images", unset="tfdata", modes=(*DATA_MODES, "report", "inference_benchmark"))
    use_dali: bool = _flag(DATA, COMPUTE, False, "read training data with DALI (an older form of --data_backend)", modes=TRAINING_MODES)
    use_dali_eval: bool = _flag(DATA, COMPUTE, False, "read evaluation data with DALI", modes=(*DATA_MODES, "inference_benchmark"))
    sampling: Literal["natural", "balanced", "sqrt"] = _flag(DATA, TRAINING, "natural", "how often to draw each class: by its size, equally, or by the square root of its size", modes=(*TRAINING_MODES, "report"))
    train_batch_size: int | Literal["auto"] = _flag(DATA, TRAINING, 32, "images per process and step; auto: as many as fit into memory", within=">= 1", modes=TRAINING_MODES, facts=Fact.CARD | Fact.RATE)
    eval_batch_size: int = _flag(DATA, MACHINE, 32, "evaluation images per process and step", within=">= 1", modes=(*DATA_MODES, "inference_benchmark"))
    num_workers: int | None = _flag(DATA, MACHINE, None, "parallel image decoders per process", unset="tuned by tf.data", within="[1, 4096]", modes=(*DATA_MODES, "predict", "inference_benchmark"))
    cache: Literal["none", "ram", "disk"] = _flag(DATA, MACHINE, "none", "where to keep encoded images after the first read", modes=(*DATA_MODES, "inference_benchmark"))
    cache_gb: float | None = _flag(DATA, MACHINE, None, "largest cache of a process and split, in gigabytes", unset="40 % of the free space, shared by all processes", within="> 0", modes=(*DATA_MODES, "inference_benchmark"))
    cache_dir: str | None = _flag(DATA, MACHINE, None, "folder of the disk cache", unset="the system's temporary folder", path="path", modes=(*DATA_MODES, "inference_benchmark"))
    max_bad_examples: float = _flag(DATA, TRAINING, 0.001, "unreadable training images to tolerate: a fraction if below 1, otherwise a number", within=">= 0", modes=TRAINING_MODES)
    max_bad_eval_examples: float = _flag(DATA, TRAINING, 0.0, "unreadable evaluation images to leave out: a fraction if below 1, otherwise a number", within=">= 0", modes=(*DATA_MODES, "inference_benchmark"))

    augmenter_name: Literal["autoaugment", "randaugment", "trivialaugment", "none"] = _flag(
        AUG, TRAINING, "autoaugment", "augmentation policy", facts=Fact.CARD)
    autoaugmentation_name: str = _flag(AUG, TRAINING, "v0", "AutoAugment's table: v0 (EfficientNet's), original (the paper's), or reduced (the paper's with v0's strengths)", facts=Fact.CARD)
    num_layers: int = _flag(AUG, TRAINING, 2, "RandAugment: operations per image", within=">= 1")
    magnitude: float = _flag(AUG, TRAINING, 10.0, "RandAugment: strength; 10 is the usual maximum", within=">= 0")
    magnitude_std: float = _flag(AUG, TRAINING, 0.0, "RandAugment: standard deviation of each operation's strength", within=">= 0")
    randaugment_space: Literal["tf", "timm", "timm-inc"] = _flag(
        AUG, TRAINING, "tf", "RandAugment: 16 operations and none (tf); or 15, each half the time (timm; timm-inc: all grow with magnitude)")
    translate_const: float | None = _flag(AUG, TRAINING, None, "largest translation in pixels", unset="the policy's", within=">= 0")
    cutout_const: float | None = _flag(AUG, TRAINING, None, "half the side of the largest cutout, in pixels", unset="the policy's", within=">= 0")
    color_jitter: list[float] | float | None = _flag(AUG, TRAINING, None, "strengths of brightness, contrast, saturation and hue; one number: the first three", unset="off")
    random_erasing: float = _flag(AUG, TRAINING, 0.0, "probability of erasing a rectangle of a training image", within="[0, 1]", facts=Fact.CARD)
    random_erasing_mode: Literal["noise", "constant"] = _flag(AUG, TRAINING, "noise", "fill erased rectangles with noise or with the mean colour")
    augment_on: Literal["cpu", "device"] = _flag(AUG, TRAINING, "cpu", "augment in the input pipeline (cpu) or the training step (device); the pixels are the same")
    mixup_alpha: float = _flag(AUG, TRAINING, 0.0, "mixup: alpha of the Beta distribution; 0: off", within=">= 0", facts=Fact.CARD)
    cutmix_alpha: float = _flag(AUG, TRAINING, 0.0, "cutmix: alpha of the Beta distribution; 0: off", within=">= 0", facts=Fact.CARD)
    mix_prob: float = _flag(AUG, TRAINING, 1.0, "probability of mixing an image, if mixup or cutmix is on", within="[0, 1]")
    mix_switch_prob: float = _flag(AUG, TRAINING, 0.5, "probability of cutmix rather than mixup, if both are on", within="[0, 1]")
    mix_off_epoch: int | None = _flag(AUG, TRAINING, None, "epochs after which mixup and cutmix stop", unset="never", within=">= 1")
    hflip: float = _flag(AUG, TRAINING, 0.5, "probability of a left-right flip", within="[0, 1]")
    crop_area_min: float = _flag(AUG, TRAINING, 0.05, "training crop: smallest fraction of the image's area")
    crop_area_max: float = _flag(AUG, TRAINING, 1.0, "training crop: largest fraction of the image's area")
    crop_ratio_min: float = _flag(AUG, TRAINING, 0.75, "training crop: smallest ratio of width to height")
    crop_ratio_max: float = _flag(AUG, TRAINING, 1.33, "training crop: largest ratio of width to height")
    exif_orientation: Literal["apply", "ignore"] | None = _flag(AUG, EVALUATION, None, "turn images upright as their EXIF data say, in training and afterwards",
                                                                unset="apply; ignore with --defaults documents, or if the weights' file does not say", modes=COMPUTING_MODES)
    interpolation: Literal["bilinear", "bicubic", "random"] = _flag(
        AUG, EVALUATION, "bilinear", "how to resize images; random: either in training, bicubic in evaluation", modes=COMPUTING_MODES, facts=Fact.CARD)
    train_image_size: int | None = _flag(AUG, TRAINING, None, "height and width of training images in pixels", unset="image_size", facts=Fact.CARD)
    n_stages: int = _flag(AUG, TRAINING, 1, "progressive training: stages, in which size, magnitude, mixing and dropout rise from the --base_… flags", within=">= 1")
    base_img_size: int = _flag(AUG, TRAINING, 128, "first stage: height and width of training images in pixels")
    base_randaug_mag: float = _flag(AUG, TRAINING, 5.0, "first stage: magnitude of RandAugment", within=">= 0")
    base_mixup: float = _flag(AUG, TRAINING, 0.0, "first stage: mixup_alpha", within=">= 0")
    base_cutmix: float = _flag(AUG, TRAINING, 0.0, "first stage: cutmix_alpha", within=">= 0")
    base_dropout: float | None = _flag(AUG, TRAINING, None, "first stage: dropout rate", unset="the last stage's", within="[0, 1)")
    eval_crop: Literal["crop", "resize", "squash"] = _flag(
        AUG, EVALUATION, "crop", "evaluation: cut the centre, then resize (crop), or resize, then cut (resize; squash distorts)", modes=COMPUTING_MODES)
    crop_padding: int = _flag(AUG, EVALUATION, 32, "evaluation: the crop is size/(size+padding) of the short side; 0: the whole side", within=">= 0", modes=COMPUTING_MODES)
    crop_pct: float | None = _flag(AUG, TRAINING, None, "crop_padding as a fraction of the short side, as in timm: 0.875 at 224 px means 32", within="(0, 1]", modes=COMPUTING_MODES)

    evaluation_like: EvaluationLike | None = _flag(
        AUG, EVALUATION, None, "eval, predict, export: size, crop and pixels to the bit as in this program (docs/evaluate.md)",
        unset="as in training; Convoy's own pixels for weights from a file", modes=APPLYING_MODES)

    optimizer: OptimizerName = _flag(OPT, TRAINING, "rmsprop", "optimizer; lars and lamb are for batches of thousands", facts=Fact.CARD)
    momentum: float = _flag(OPT, TRAINING, 0.9, "momentum, rmsprop, lars: momentum", within="[0, 1)")
    nesterov: bool = _flag(OPT, TRAINING, False, "momentum, lars: use Nesterov momentum")
    decay: float = _flag(OPT, TRAINING, 0.9, "rmsprop: decay of the mean square (rho)", within="[0, 1)")
    epsilon: float = _flag(OPT, TRAINING, 0.001, "rmsprop (inside the root), adam, adamw, lamb: epsilon", within="> 0")
    beta_1: float = _flag(OPT, TRAINING, 0.9, "adam, adamw, lamb: decay of the first moment", within="[0, 1)")
    beta_2: float = _flag(OPT, TRAINING, 0.999, "adam, adamw, lamb: decay of the second moment", within="[0, 1)")
    trust_coefficient: float = _flag(OPT, TRAINING, 0.001, "lars: largest ratio of an update's norm to its weight's norm", within="> 0")
    lr_init: float = _flag(OPT, TRAINING, 0.008, "peak learning rate for lr_base_batch images per step", within=">= 0", facts=Fact.CARD | Fact.RATE)
    lr_base_batch: int = _flag(OPT, TRAINING, 128, "batch size that lr_init is for; the rate scales with the whole batch; 0: no scaling", within=">= 0", facts=Fact.CARD | Fact.RATE)
    lr_decay: Literal[ScheduleName, "piecewise_constant_with_warmup"] = _flag(OPT, TRAINING, "exponential", "learning-rate schedule", facts=Fact.CARD | Fact.RATE)
    lr_decay_rate: float = _flag(OPT, TRAINING, 0.97, "exponential: factor per lr_decay_epochs; step: factor per boundary", within="> 0", facts=Fact.RATE)
    lr_decay_epochs: float | str = _flag(OPT, TRAINING, 2.4, "exponential: epochs between two decays; also 500steps, or 1% of the run", within="> 0", facts=Fact.RATE)
    lr_boundaries: list[float | str] | None = _flag(OPT, TRAINING, None, "step, piecewise: epochs where the rate changes; also 500steps or 10%", unset="step: at 3, 6 and 8 ninths of the run", facts=Fact.RATE)
    lr_multipliers: list[float] | None = _flag(OPT, TRAINING, None, "piecewise: multiples of the peak rate, one more than boundaries", facts=Fact.RATE)
    lr_end: float = _flag(OPT, TRAINING, 0.0, "cosine, linear: learning rate at the end", within=">= 0", facts=Fact.RATE)
    warmup_epochs: float | str = _flag(OPT, TRAINING, 5.0, "epochs of linear warm-up; also 500steps, or 10% of the run", ("lr_warmup_epochs",), facts=Fact.CARD | Fact.RATE)
    layer_decay: float = _flag(OPT, TRAINING, 1.0, "factor on the learning rate from each block to the block below it; 1: off", within="(0, 1]")
    weight_decay: float = _flag(OPT, TRAINING, 5e-6, "weight decay of kernels; batch norm and biases have none", within=">= 0", facts=Fact.CARD)
    weight_decay_style: Literal["l2", "half_l2", "decoupled"] = _flag(
        OPT, TRAINING, "l2", "add decay*w^2 (l2, as Keras) or half of it (half_l2, as PyTorch) to the loss, or decouple it (AdamW)")
    bn_weight_decay: bool = _flag(OPT, TRAINING, False, "decay batch norm's gamma and beta too")
    grad_clip_norm: float = _flag(OPT, TRAINING, 0.0, "clip gradients to this global norm; 0: off", within=">= 0")
    grad_clip_value: float = _flag(OPT, TRAINING, 0.0, "clip each element of the gradients to this magnitude; 0: off", within=">= 0")
    grad_clip_agc: float = _flag(OPT, TRAINING, 0.0, "adaptive clipping: largest ratio of a unit's gradient norm to its weight norm; 0: off", within=">= 0")
    loss: Literal["softmax", "bce"] = _flag(OPT, TRAINING, "softmax", "softmax cross-entropy, or binary cross-entropy per class (bce; only in training)")
    bce_target_threshold: float | None = _flag(OPT, TRAINING, None, "bce: targets above this count as 1, the others as 0", unset="targets do not change")
    class_weights: str = _flag(OPT, TRAINING, "none", "weights of classes in the loss: none, balanced, or a YAML file of names and weights", words=("none", "balanced"), path="path")
    label_smoothing: float = _flag(OPT, TRAINING, 0.1, "label smoothing: fraction of the label spread over all classes", within="[0, 1)", facts=Fact.CARD)
    moving_average_decay: float = _flag(OPT, TRAINING, 0.0, "decay of the moving average of the weights (EMA); 0: off", within="[0, 1)", facts=Fact.CARD)
    optimizer_batch_size: int | None = _flag(OPT, TRAINING, None, "images per update over all processes; gradients are accumulated to reach it", unset="one step's", within=">= 1", facts=Fact.CARD | Fact.RATE)
    grad_accum_steps: int | None = _flag(OPT, TRAINING, None, "forward passes per update, instead of optimizer_batch_size", within=">= 1", facts=Fact.CARD | Fact.RATE)

    use_amp: bool = _flag(PREC, TRAINING, False, "mixed precision: float16 on GPUs, bfloat16 on CPUs where that is faster", modes=_NOT_EXPORT, facts=Fact.CARD)
    dtype: Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"] | None = _flag(
        PREC, TRAINING, None, "data type for computing; overrides --use_amp", modes=_NOT_EXPORT, facts=Fact.CARD)
    loss_scale: str = _flag(PREC, TRAINING, "dynamic", "float16: dynamic loss scaling, or a fixed factor")
    data_format: Literal["channels_last", "channels_first"] = _flag(
        PREC, COMPUTE, "channels_last", "memory layout; channels_first is for GPUs before tensor cores (on CPUs with --use_xla)", modes=MODEL_MODES)
    use_xla: bool = _flag(PREC, TRAINING, False, "compile the step with XLA", modes=COMPUTING_MODES)
    recompute: int | Literal["none", "norms", "blocks", "auto"] = _flag(
        PREC, MACHINE, "none", "what to compute again, to save memory: norms, also all blocks or the N largest; auto: as little as fits", within=">= 1", modes=(*TRAINING_MODES, "summary"))
    xla_cache: str | None = _flag(PREC, MACHINE, None, "folder for XLA's compiled code, which is executed: let nobody else write there", path="path", modes=COMPUTING_MODES)
    hvd_fp16_compression: bool = _flag(PREC, TRAINING, False, "exchange gradients as float16")
    gradient_predivide_factor: float | None = _flag(PREC, TRAINING, None, "divide gradients by this before their sum over processes, and by the rest afterwards",
                                                    unset="1; the number of processes if --hvd_fp16_compression could overflow", within="> 0")
    gradient_groups: int = _flag(PREC, TRAINING, 1, "number of groups in which gradients are exchanged; 1: all at once", within=">= 1")
    adasum: bool = _flag(PREC, TRAINING, False, "combine gradients by Adasum instead of averaging them (MPI or NCCL)")
    tf32: bool = _flag(PREC, TRAINING, True, "use TensorFloat-32 for float32 matrix products on GPUs that have it", modes=_NOT_EXPORT)

    save_checkpoint_freq: int = _flag(CKPT, TRAINING, 1, "epochs between checkpoints; the best is always kept", within=">= 1")
    checkpoint_every_minutes: float | None = _flag(CKPT, TRAINING, None, "minutes between checkpoints within an epoch", within="> 0")
    keep_checkpoints: int = _flag(CKPT, TRAINING, 2, "number of latest checkpoints to keep", within=">= 1")
    keep_best: int = _flag(CKPT, TRAINING, 1, "number of best checkpoints to keep", within=">= 0")
    elastic_commit_steps: int = _flag(CKPT, MACHINE, 100, "elastic jobs: steps between copies of the state in memory, from which training resumes if a process is lost", within=">= 1")
    preempt_signals: str = _flag(CKPT, MACHINE, ",".join(USUAL), "signals that make a run save and stop with exit code 75; none: handle none", several=True)
    requeue: bool = _flag(CKPT, MACHINE, True, "after one of preempt_signals, ask Slurm to queue the batch job again")
    resume_checkpoint: bool = _flag(CKPT, LAUNCH, False, "continue from the newest checkpoint in model_dir", facts=Fact.LABEL)
    accept_changed_classes: bool = _flag(CKPT, TRAINING, False, "resume even if classes were renamed or removed; new ones take over their outputs")
    nan_rollback: int = _flag(CKPT, TRAINING, 0, "how often to return to the last checkpoint and skip a step whose loss or gradient is not finite", within=">= 0")
    gather_checkpoints: bool = _flag(CKPT, TRAINING, False, "keep all checkpoints")
    no_checkpoints: bool = _flag(CKPT, TRAINING, False, "save no checkpoints")
    checkpoint: str = _flag(CKPT, LAUNCH, "best", "checkpoint to use: best, last, its name (step-00000319), or its folder", ("inference_checkpoint",), path="path", modes=_USING_WEIGHTS)
    weights: Literal["auto", "raw", "ema", "both"] = _flag(CKPT, LAUNCH, "auto", "weights to use: raw, the moving average (ema), or the better one (auto); both: with --report", modes=_USING_WEIGHTS)
    pretrained: bool = _flag(CKPT, MACHINE, False, "use published weights of --arch: installed ones, otherwise Keras', downloaded (docs/train.md)", modes=_LOADING_FILES)
    pretrained_from_file: str | None = _flag(CKPT, LAUNCH, None, "use these weights: .keras, .h5, .safetensors, .pth, a checkpoint's folder, or an exported .onnx", path="path", modes=_LOADING_FILES)
    pretrained_partial: bool = _flag(CKPT, MACHINE, False, "load the matching tensors of a weight file, even if more than the classifier does not match", modes=_LOADING_FILES)
    pretrained_strict: bool = _flag(CKPT, MACHINE, False, "reject a weight file whose classifier does not match", modes=(*TRAINING_MODES, *APPLYING_MODES))
    freeze_backbone: bool = _flag(CKPT, TRAINING, False, "train only the classifier")
    weight_names: Literal["convoy", "torchvision", "timm", "nvidia", "transformers", "efficientnet_pytorch"] = _flag(
        CKPT, MACHINE, "convoy", "convert to .safetensors: names and layout to write", modes=("convert",))

    report: bool = _flag(EVAL, RESULT, False, "--mode eval: write a page with results by class, confusions and calibration")
    report_dir: str | None = _flag(EVAL, RESULT, None, "folder of the report", unset="model_dir/eval_report", path="path")
    report_checkpoints: str | None = _flag(EVAL, RESULT, None, "comma-separated checkpoints to compare with --checkpoint: last, folders, or other runs' model_dir", path="paths", several=True)
    report_image_sizes: str | None = _flag(EVAL, RESULT, None, "image sizes to evaluate at, in pixels, such as 224,288", unset="image_size", several=True)
    eval_labels: str | None = _flag(EVAL, RESULT, None, "labels that replace the data's: ReaL's real.json, or a file of names and labels (docs/evaluate.md)", path="path")

    predict_dir: str | None = _flag(PRED, LAUNCH, None, "images to label: a folder, a file, a pattern such as 'photos/*.jpg', a .txt of paths, or - (standard input)", ("to_predict",), path="path", modes=("predict", "export"))
    image: str | None = _flag(PRED, LAUNCH, None, "one image to label; the answer is one line", path="path")
    engine: Literal["auto", "tensorflow", "onnx"] = _flag(PRED, LAUNCH, "auto", "predict, eval: what computes; auto: ONNX Runtime to predict with an export of the checkpoint", modes=ENGINE_MODES)
    predict_batch_size: int | Literal["auto"] = _flag(PRED, RESULT, "auto", "images per step; auto: 32 in TensorFlow, 8 or fewer in ONNX Runtime", within=">= 1")
    top_k: int = _flag(PRED, RESULT, 5, "classes to report per image", within=">= 1", modes=("predict", "export", "inference_benchmark"))
    min_confidence: float = _flag(PRED, RESULT, 0.0, "smallest probability of a class to report", within="[0, 1]")
    flip_tta: bool = _flag(PRED, RESULT, False, "average the probabilities of each image and its mirror image")
    label_file: str | None = _flag(PRED, RESULT, None, "file of class names, one per line", unset="the training data's names; ImageNet's if it had none and 1,000 classes", path="path", modes=("eval", "predict", "export", "report"))
    predict_formats: str = _flag(PRED, RESULT, "table,jsonl,csv", "comma-separated outputs: table (printed), jsonl, csv, parquet, gallery (a page)", several=True)
    output: str | None = _flag(PRED, LAUNCH, None, "path of the results; predictions and benchmarks add file extensions",
                               unset="in model_dir", path="path", modes=("predict", "export", "convert", "report", *BENCHMARK_MODES))
    export_format: str = _flag(PRED, RESULT, "savedmodel", "comma-separated formats to export: savedmodel, tflite, tflite-int8, onnx, onnx-int8", several=True, modes=("export",))
    export_samples: int = _flag(PRED, RESULT, 500, "images (--predict_dir or data_dir) for comparing exports with Keras; 0: none", within=">= 0", modes=("export",))
    export_backbone: bool = _flag(PRED, RESULT, False, "exports also return the features before the classifier", modes=("export",))
    overwrite: bool = _flag(PRED, LAUNCH, False, "replace earlier files of --mode export or convert", modes=("export", "convert"))

    benchmark_batch_sizes: str | None = _flag(BENCH, RESULT, None, "comma-separated images per process and step; sweep: 1, 2, 4, … to the documents' largest",
                                              unset="train_batch_size or eval_batch_size", several=True)
    benchmark_precisions: str | None = _flag(BENCH, RESULT, None, "comma-separated precisions: fp32, tf32, amp, bf16, fp16", unset="as the other flags say", several=True)
    benchmark_xla: str | None = _flag(BENCH, RESULT, None, "off, on, or off,on to compare", unset="as --use_xla says", several=True)
    benchmark_formats: str = _flag(BENCH, RESULT, "keras", "inference: comma-separated formats: keras, savedmodel, tflite, tflite-int8, onnx, onnx-int8", several=True, modes=("inference_benchmark",))
    benchmark_warmup: int = _flag(BENCH, RESULT, 10, "iterations before timing begins", within=">= 1")

    log_filename: str = _flag(LOG, RESULT, "log.json", "log file inside model_dir, in dllogger's format", path="inside", modes=(*DATA_MODES, "report", "inference_benchmark"))
    log_steps: int = _flag(LOG, RESULT, 100, "steps between log lines", within=">= 1")
    training_report: bool = _flag(LOG, RESULT, True, "after training, write model_dir/report.html, a page about the run", facts=Fact.LABEL)
    report_images: int = _flag(LOG, RESULT, 12, "training images and explained predictions (Grad-CAM) in a report; 0: none", within=">= 0", modes=(*TRAINING_MODES, "report"), facts=Fact.LABEL)
    runs: list[str] | None = _flag(LOG, LAUNCH, None, "--mode report: folders of runs to compare, separated by spaces", path="path", modes=("report",))
    trackers: str = _flag(LOG, RESULT, "none", "comma-separated trackers to log to: tensorboard, wandb, mlflow", several=True)
    tracker_project: str = _flag(LOG, RESULT, "convoy", "project in Weights & Biases, experiment in MLflow")
    run_name: str | None = _flag(LOG, RESULT, None, "name of the run in trackers", unset="the last folder of model_dir", facts=Fact.LABEL)
    enable_tensorboard: bool = _flag(LOG, RESULT, False, "the same as --trackers tensorboard")
    profile_steps: str | None = _flag(LOG, RESULT, None, "FIRST-LAST: steps to profile on rank 0, for TensorBoard's profile page")
    verbose: bool = _flag(LOG, LAUNCH, False, "show TensorFlow's own messages", modes=ALL_MODES)
    # fmt: on

    def to_yaml(self) -> str:
        """Returns the settings as YAML text that `--config` can read."""
        return self._yaml

    @cached_property
    def _yaml(self) -> str:  # cached: it takes 20 ms, and every checkpoint has it
        place = {}
        with suppress(OSError):  # the folder may be gone
            place[MADE_IN] = os.getcwd()
        groups = {f.name: f.metadata["group"] for f in fields(self)}
        return config_text(asdict(self), groups, defaults(self.arch), place)

    def with_(self, **changes: Any) -> Config:
        """Returns a copy with some settings changed."""
        return replace(self, **changes)


def defaults(arch: str) -> dict[str, Any]:
    """Returns an architecture's default for every setting; for unknown names, EfficientNet's."""
    from convoy.model.catalog import get_arch

    values = {f.name: f.default for f in fields(Config) if f.default is not MISSING}
    values["arch"] = arch
    try:
        entry = get_arch(arch)
    except ValueError:
        return values  # rejected later, with the nearest name
    published = {"interpolation": entry.interpolation, "crop_padding": entry.crop_padding}
    values |= {name: value for name, value in published.items() if value is not None}
    return values | FAMILY_DEFAULTS.get(entry.family, {})


@cache
def kinds() -> dict[str, Kind]:
    """Returns the `Kind` of each flag's value, by the flag's name."""
    hints = get_type_hints(Config)
    return {
        f.name: Kind.of(
            f.name, hints[f.name], path=f.metadata["path"], several=f.metadata["several"]
        )
        for f in fields(Config)
    }


@cache
def spellings() -> dict[str, str]:
    """Maps the names of all flags, and their aliases, to the names in `Config`."""
    return {name: f.name for f in fields(Config) for name in (f.name, *f.metadata["aliases"])}


def settle(written: str, value: Any, where: str = "") -> tuple[str, Any]:
    """Returns the name in `Config` and the checked value of one setting.

    Args:
        written: the setting's name, or an alias.
        value: what the user wrote.
        where: the start of error messages about a file, such as "b0.yaml, line 3: "; without it
            they begin with the flag.

    Raises:
        ConfigError: there is no such setting, or it does not accept this value.
    """
    if written not in spellings():
        meant = meant_by(written.strip("-").replace("-", "_").lower(), spellings())
        hint = f"did you mean {meant}?" if meant else "--help=all lists all"
        raise ConfigError(f"{where}there is no setting {written}; {hint}")
    name = spellings()[written]
    try:
        return name, kinds()[name](value)
    except ValueRefused as error:
        raise ConfigError(f"{where or '--'}{name} {error}") from error


def load_config(path: str | Path | Remote) -> Config:
    """Reads the `config.yaml` in a run's model_dir.

    Raises:
        ConfigError: the file is missing, or holds something other than settings.
    """
    try:
        settings = read_settings(path)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    except TextError as error:
        raise ConfigError(str(error)) from error
    settings = {name: setting for name, setting in settings.items() if name != MADE_IN}
    unknown = sorted(set(settings) - set(spellings()))
    if unknown:
        raise ConfigError(f"{path} has unknown settings: {', '.join(unknown)}")
    values = dict(settle(n, s.value, f"{path}, line {s.line}: ") for n, s in settings.items())
    values.setdefault("defaults", "documents")  # runs from before --defaults existed
    values.setdefault("exif_orientation", "ignore")  # likewise
    return Config(**(defaults(values.get("arch", Config.arch)) | values))
