"""Every flag, once: name, type, default, group, help, range.

`Config` is the only place where a flag is declared. The command line (`runtime/command_line/cli.py`), the YAML recipes
and the `config.yaml` that each run leaves behind all follow from it. This module imports no TensorFlow.

Defaults are those of the EfficientNet document. An architecture of another family replaces those that its
own document states otherwise (`FAMILY_DEFAULTS`); a recipe overrides both, and a flag overrides the recipe.
"""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from convoy.runtime.settings.defaults_by_family import FAMILY_DEFAULTS
from convoy.runtime.settings.flags import MADE_IN, MODE_ALIASES, MODES
from convoy.runtime.settings.flags import flag as _flag
from convoy.runtime.settings.settings_file import read_settings
from convoy.runtime.settings.values import Kind, ValueRefused
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote
from convoy.utils.signals import USUAL
from convoy.utils.text import TextError

__all__ = ["MADE_IN", "MODES", "MODE_ALIASES", "Config", "ConfigError", "defaults", "kinds",
           "load_config", "settle"]  # fmt: skip

RUN, MODEL, DATA, AUG = "Run", "Model", "Data", "Augmentation"
OPT, PREC, CKPT, EVAL, PRED, BENCH, LOG = (
    "Optimisation",
    "Precision and speed",
    "Checkpoints",
    "Evaluation report",
    "Prediction",
    "Benchmarks",
    "Logging",
)


@dataclass(frozen=True)
class Config:
    """The resolved settings of one run. Read-only: derive another with `dataclasses.replace`."""

    # fmt: off
    mode: str = _flag(RUN, "train_and_eval", "what to do: " + ", ".join(MODES))
    recipe: str | None = _flag(RUN, None, "settings by model, platform and, if you like, precision, mode and epochs: "
                               "resnet50/DGXA100/AMP/90E; `python -m convoy.runtime.settings.recipes` lists them")
    defaults: Literal["data", "documents"] = _flag(RUN, "data", "settings that are not given: data: chosen from the data where there are fewer "
                                                   "than 50,000 images (docs/defaults.md); documents: NVIDIA's, for ImageNet, as in all recipes")
    nproc: int | None = _flag(RUN, None, "processes to start on this host, one for each GPU; unset: one, or those that "
                              "horovodrun, mpirun or srun started", within="[1, 4096]")
    pattern: str | None = _flag(RUN, None, "--mode list: only architectures of this name, such as 'resnet*'")
    model_dir: str = _flag(RUN, "/workspace/output", "folder of this run: checkpoints, config.yaml, log.json; also gs://… or "
                           "another URL that TensorFlow can write; unset, and weights of a file are applied: the current folder", path="path")
    max_epochs: int = _flag(RUN, 300, "epochs of training; also the length of the learning-rate schedule", within=">= 1")
    run_epochs: int | None = _flag(RUN, None, "stop after this many epochs of this launch (the schedule keeps "
                                   "its length; resume later)", within=">= 1")
    steps_per_epoch: int | None = _flag(RUN, None, "updates of the weights in an epoch, which may gather several passes; unset: every example once", within=">= 1")
    num_epochs_between_eval: int = _flag(RUN, 1, "evaluate every so many epochs, and after the last", within=">= 1")
    early_stopping: int | None = _flag(RUN, None, "end training after so many evaluations without a better one than before; unset: never", within=">= 1")
    best_metric: Literal["top1", "loss", "macro_f1"] = _flag(RUN, "top1", "by which figure of the evaluation one is the best: top-1, the loss, or "
                                                             "the mean of all classes' F1")
    prof: int | None = _flag(RUN, None, "stop training or evaluation after this many steps; benchmarks: iterations that are timed (100)", within=">= 1")
    seed: int = _flag(RUN, 0, "seed of initialisation, order, augmentation and dropout")
    watchdog_seconds: float = _flag(RUN, 20.0, "with several processes: one that gives no sign of life, or keeps the others waiting, for so many seconds ends the job; 0: never", within=">= 0")
    data_wait_seconds: float = _flag(RUN, 600.0, "the same for one that waits for its data, as from a slow disk", within="> 0")
    intraop_threads: int | None = _flag(RUN, None, "threads inside one TensorFlow operation; unset: all cores", within="[1, 4096]")
    interop_threads: int | None = _flag(RUN, None, "TensorFlow operations run side by side; unset: all cores", within="[1, 4096]")

    arch: str = _flag(MODEL, "efficientnet-b0", "architecture; see --mode list")
    num_classes: int | None = _flag(MODEL, None, "size of the head; unset: as the data says", within=">= 2")
    image_size: int | None = _flag(MODEL, None, "pixels a side; unset: the architecture's own")
    dropout: float | None = _flag(MODEL, None, "dropout before the head; unset: the architecture's own", within="[0, 1)")
    stochastic_depth: float | None = _flag(MODEL, None, "drop rate of the last residual branch, rising "
                                           "linearly from 0; unset: the architecture's own", ("drop_connect_rate",), within="[0, 1)")
    activation: str | None = _flag(MODEL, None, "activation inside the network; unset: the architecture's (swish, relu6, relu)")
    batch_norm: Literal["default", "syncbn"] = _flag(MODEL, "default", "batch statistics per process, or over all")
    bn_momentum: float | None = _flag(MODEL, None, "batch-norm momentum (Keras convention); unset: the family's", within="[0, 1)")
    bn_epsilon: float | None = _flag(MODEL, None, "batch-norm epsilon; unset: the family's", within="> 0")
    weight_init: Literal["fan_in", "fan_out"] = _flag(MODEL, "fan_out", "mode of the weight initialiser")
    zero_gamma: bool = _flag(MODEL, False, "ResNets: the last batch norm of each block starts at 0")
    padding: Literal["same", "symmetric"] | None = _flag(MODEL, None, "padding at stride 2: TensorFlow's "
                                                         "(same) or PyTorch's (symmetric); unset: the family's")

    data_dir: str = _flag(DATA, "/data/", "folder with train-*, validation-* TFRecords, or train/ and val/ folders; or a .csv file with columns path, label and, if you like, split", path="path")
    dataset: str = _flag(DATA, "ImageNet", "what lies in data_dir: ImageNet (records or image folders of any "
                         "classes), or tfds:NAME[/CONFIG][:VERSION], prepared by TensorFlow Datasets")
    first_label: int | None = _flag(DATA, None, "TFRecords: the number of the first class in image/class/label; TF-Slim's data sets "
                                    "count from 0; unset: 1 (0 in TFDS's)", within=">= 0")
    validation_fraction: float | None = _flag(DATA, None, "class folders without a validation split: the share of each class that is held out for it, the "
                                              "same images in every run", within="(0, 1)")
    validation_seed: int = _flag(DATA, 0, "another one holds other images out; --seed does not change which")
    data_backend: Literal["tfdata", "synthetic", "dali-cpu", "dali-gpu"] | None = _flag(
        DATA, None, "what reads and decodes; synthetic: random images, for benchmarks; unset: tfdata")
    use_dali: bool = _flag(DATA, False, "DALI for training data, on a GPU if there is one: older than --data_backend")
    use_dali_eval: bool = _flag(DATA, False, "the same for evaluation data")
    sampling: Literal["natural", "balanced", "sqrt"] = _flag(DATA, "natural", "how often classes are drawn for training: as they occur, all alike, or by "
                                                             "the root of their size")
    train_batch_size: int | Literal["auto"] = _flag(DATA, 32, "training images per process and step; auto: as many as fit into memory "
                                                    "(docs/defaults.md)", within=">= 1")
    eval_batch_size: int = _flag(DATA, 32, "evaluation images per process and step", within=">= 1")
    num_workers: int | None = _flag(DATA, None, "parallel decoders per process; unset: tuned by tf.data", within="[1, 4096]")
    cache: Literal["none", "ram", "disk"] = _flag(DATA, "none", "keep encoded images after they are first read")
    cache_gb: float | None = _flag(DATA, None, "gigabytes a cache may take, per process and split; unset: 40 % of what "
                                   "is free, shared by this host's processes", within="> 0")
    cache_dir: str | None = _flag(DATA, None, "folder of a disk cache; unset: the system's temporary folder", path="path")
    max_bad_examples: float = _flag(DATA, 0.001, "unreadable training images tolerated: a share below 1, else a count", within=">= 0")
    max_bad_eval_examples: float = _flag(DATA, 0.0, "unreadable evaluation images left out, and counted in the result: a share below 1, "
                                         "else a count", within=">= 0")

    augmenter_name: Literal["autoaugment", "randaugment", "trivialaugment", "none"] = _flag(
        AUG, "autoaugment", "policy for training images")
    autoaugmentation_name: str = _flag(AUG, "v0", "which AutoAugment policy: v0 (the EfficientNet papers'), original "
                                       "(the AutoAugment paper's), or reduced (its table with v0's strengths)")
    num_layers: int = _flag(AUG, 2, "RandAugment: operations per image", within=">= 1")
    magnitude: float = _flag(AUG, 10.0, "RandAugment: strength, 0 to 10 (more is stronger still)", within=">= 0")
    magnitude_std: float = _flag(AUG, 0.0, "RandAugment: standard deviation of the strength, drawn for each operation", within=">= 0")
    randaugment_space: Literal["tf", "timm", "timm-inc"] = _flag(
        AUG, "tf", "RandAugment: what is drawn; tf: 16 operations or none; timm: 15, each applied with probability 1/2; "
        "timm-inc: the same, stronger with magnitude (its inc1)")
    translate_const: float | None = _flag(AUG, None, "pixels of the strongest translation; unset: the policy's")
    cutout_const: float | None = _flag(AUG, None, "half side of the largest cutout; unset: the policy's")
    color_jitter: list[float] | float | None = _flag(AUG, None, "strengths of brightness, contrast, saturation and "
                                                     "hue; one number: the first three; unset: off")
    random_erasing: float = _flag(AUG, 0.0, "probability that a rectangle of a training image is erased", within="[0, 1]")
    random_erasing_mode: Literal["noise", "constant"] = _flag(AUG, "noise", "fill it with noise, or with the mean colour")
    augment_on: Literal["cpu", "device"] = _flag(AUG, "cpu", "where the policy, jitter, erasing and mixing are done: by the "
                                                 "input pipeline, or in the training step, to the same pixels")
    mixup_alpha: float = _flag(AUG, 0.0, "mixup: alpha of the Beta distribution; 0: off", within=">= 0")
    cutmix_alpha: float = _flag(AUG, 0.0, "cutmix: alpha of the Beta distribution; 0: off", within=">= 0")
    mix_prob: float = _flag(AUG, 1.0, "probability that an image is mixed at all, where mixup or cutmix is on", within="[0, 1]")
    mix_switch_prob: float = _flag(AUG, 0.5, "probability of cutmix for a mixed image, where both are on", within="[0, 1]")
    mix_off_epoch: int | None = _flag(AUG, None, "mix in this many epochs only, counted from the first; unset: in all", within=">= 1")
    hflip: float = _flag(AUG, 0.5, "probability of a left-right flip", within="[0, 1]")
    crop_area_min: float = _flag(AUG, 0.05, "smallest share of the image that a training crop covers")
    crop_area_max: float = _flag(AUG, 1.0, "largest share of the image that a training crop covers")
    crop_ratio_min: float = _flag(AUG, 0.75, "narrowest training crop, width over height")
    crop_ratio_max: float = _flag(AUG, 1.33, "widest training crop, width over height")
    exif_orientation: Literal["apply", "ignore"] | None = _flag(AUG, None, "turn images as EXIF says, as phones' need it, in training and all that follows; unset: apply; "
                                                                "ignore with --defaults documents and for weights that say nothing of it")
    interpolation: Literal["bilinear", "bicubic", "random"] = _flag(
        AUG, "bilinear", "how images are resized; random: either, by chance, and bicubic in evaluation")
    train_image_size: int | None = _flag(AUG, None, "pixels a side of training images; unset: image_size")
    n_stages: int = _flag(AUG, 1, "progressive training: stages of equal length, in which the size, the magnitude, mixup, "
                          "cutmix and dropout rise from base_… to the other flags", within=">= 1")
    base_img_size: int = _flag(AUG, 128, "first stage: pixels a side of training images")
    base_randaug_mag: float = _flag(AUG, 5.0, "first stage: magnitude of RandAugment", within=">= 0")
    base_mixup: float = _flag(AUG, 0.0, "first stage: mixup_alpha", within=">= 0")
    base_cutmix: float = _flag(AUG, 0.0, "first stage: cutmix_alpha", within=">= 0")
    base_dropout: float | None = _flag(AUG, None, "first stage: dropout before the head; unset: as in all", within="[0, 1)")
    eval_crop: Literal["crop", "resize"] = _flag(AUG, "crop", "evaluation: cut the centre square, then resize "
                                                 "(EfficientNet), or resize, then cut it (ResNet)")
    crop_padding: int = _flag(AUG, 32, "evaluation crop is size/(size+padding) of the short side; 0: all of it", within=">= 0")
    crop_pct: float | None = _flag(AUG, None, "the same as a share of the short side, as timm and torchvision state it: 0.875 "
                                   "of 224 px is 32 pixels of padding", within="(0, 1]")

    optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adamw", "lars", "lamb"] = _flag(
        OPT, "rmsprop", "optimizer; lars and lamb are for batches of many thousands")
    momentum: float = _flag(OPT, 0.9, "momentum of momentum, rmsprop and lars", within="[0, 1)")
    nesterov: bool = _flag(OPT, False, "Nesterov momentum, for momentum and lars")
    decay: float = _flag(OPT, 0.9, "rmsprop: decay of the mean square (rho)", within="[0, 1)")
    epsilon: float = _flag(OPT, 0.001, "epsilon of rmsprop (inside the root), adam, adamw and lamb", within="> 0")
    beta_1: float = _flag(OPT, 0.9, "adam, adamw, lamb: decay of the first moment", within="[0, 1)")
    beta_2: float = _flag(OPT, 0.999, "adam, adamw, lamb: decay of the second moment", within="[0, 1)")
    trust_coefficient: float = _flag(OPT, 0.001, "lars: share of a weight's norm that one update may move it by", within="> 0")
    lr_init: float = _flag(OPT, 0.008, "peak learning rate for lr_base_batch images a step", within=">= 0")
    lr_base_batch: int = _flag(OPT, 128, "batch that lr_init is meant for; the rate is scaled to the global batch; "
                               "0: use lr_init as it is", within=">= 0")
    lr_decay: Literal["exponential", "cosine", "linear", "linearcosine", "step", "piecewise",
                      "piecewise_constant_with_warmup", "constant"] = _flag(OPT, "exponential", "learning-rate schedule")
    lr_decay_rate: float = _flag(OPT, 0.97, "exponential: factor per lr_decay_epochs; step: factor per boundary", within="> 0")
    lr_decay_epochs: float | str = _flag(OPT, 2.4, "exponential: epochs between two decays; also 500steps, or 1% of the run")
    lr_boundaries: list[float | str] | None = _flag(OPT, None, "step, piecewise: epochs where the rate changes, also 500steps or 10%; "
                                                    "unset, step: at 3, 6 and 8 ninths of the run")
    lr_multipliers: list[float] | None = _flag(OPT, None, "piecewise: multiples of the peak, one more than boundaries")
    lr_end: float = _flag(OPT, 0.0, "cosine, linear: learning rate at the end", within=">= 0")
    warmup_epochs: float | str = _flag(OPT, 5.0, "epochs of linear warm-up, also 500steps, or 10% of the run (unset, in runs of no more "
                                       "epochs: a fifth of them); left out of throughput figures", ("lr_warmup_epochs",))
    layer_decay: float = _flag(OPT, 1.0, "the learning rate of each block is this times that of the block above it; 1: off", within="(0, 1]")
    weight_decay: float = _flag(OPT, 5e-6, "weight decay of kernels; never of batch norm or biases", within=">= 0")
    weight_decay_style: Literal["l2", "half_l2", "decoupled"] = _flag(
        OPT, "l2", "l2: adds decay*w^2 to the loss (Keras); half_l2: half of that (PyTorch); decoupled: AdamW's; lars "
        "and lamb have their own")
    bn_weight_decay: bool = _flag(OPT, False, "decay batch norm's gamma and beta too")
    grad_clip_norm: float = _flag(OPT, 0.0, "scale gradients down to this norm of all together; 0: off", within=">= 0")
    grad_clip_value: float = _flag(OPT, 0.0, "cut each gradient to this size; 0: off", within=">= 0")
    grad_clip_agc: float = _flag(OPT, 0.0, "adaptive clipping: largest gradient norm of a unit, as a share of its "
                                 "weights' norm; 0: off", within=">= 0")
    loss: Literal["softmax", "bce"] = _flag(OPT, "softmax", "softmax cross-entropy, or one sigmoid a class (training "
                                            "only; evaluation reports softmax cross-entropy)")
    bce_target_threshold: float | None = _flag(OPT, None, "bce: smoothed and mixed targets above it count as 1, the "
                                               "others as 0; unset: as they are")
    class_weights: str = _flag(OPT, "none", "how much an example of each class counts in the loss: none (alike), balanced (each class as much "
                               "as another), or a YAML file of names and weights", path="path")
    label_smoothing: float = _flag(OPT, 0.1, "share of the label spread over all classes", within="[0, 1)")
    moving_average_decay: float = _flag(OPT, 0.0, "decay of the moving average of all weights; 0: off", within="[0, 1)")
    optimizer_batch_size: int | None = _flag(OPT, None, "images per update over all processes, gathered over "
                                             "several forward passes; unset: one pass", within=">= 1")
    grad_accum_steps: int | None = _flag(OPT, None, "forward passes per update: the other spelling of "
                                         "optimizer_batch_size", within=">= 1")

    use_amp: bool = _flag(PREC, False, "mixed precision: float16 with loss scaling on GPUs, bfloat16 on CPUs")
    dtype: Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"] | None = _flag(
        PREC, None, "compute type, whatever --use_amp says")
    loss_scale: str = _flag(PREC, "dynamic", "float16 only: dynamic, or a fixed number")
    data_format: Literal["channels_last", "channels_first"] = _flag(
        PREC, "channels_last", "layout that the model computes in; weights are the same. channels_first is for GPUs before "
        "tensor cores; on CPUs it needs --use_xla")
    use_xla: bool = _flag(PREC, False, "compile the step with XLA")
    xla_cache: str | None = _flag(PREC, None, "folder where XLA keeps what it compiles, for the next run of the same model on the same "
                                  "kind of machine; what lies there is run, so let nobody else write to it", path="path")
    hvd_fp16_compression: bool = _flag(PREC, False, "exchange gradients as float16")
    gradient_predivide_factor: float = _flag(PREC, 1.0, "divide gradients by this before they are summed over "
                                             "processes, and by the rest after", within="> 0")
    gradient_groups: int = _flag(PREC, 1, "exchange gradients in so many groups; 1: all at once", within=">= 1")
    adasum: bool = _flag(PREC, False, "combine gradients by Adasum instead of their mean (MPI or NCCL builds)")
    tf32: bool = _flag(PREC, True, "let float32 matrix products use TensorFloat-32 where the GPU has it")

    save_checkpoint_freq: int = _flag(CKPT, 1, "epochs between two checkpoints; the best is always kept", within=">= 1")
    checkpoint_every_minutes: float | None = _flag(CKPT, None, "save also within an epoch, whenever so many minutes "
                                                   "have passed", within="> 0")
    keep_checkpoints: int = _flag(CKPT, 2, "how many of the newest checkpoints to keep", within=">= 1")
    keep_best: int = _flag(CKPT, 1, "how many of the best evaluated checkpoints to keep", within=">= 0")
    elastic_commit_steps: int = _flag(CKPT, 100, "elastic jobs (horovodrun --min-np): steps between two copies of the "
                                      "state in memory, from which the run goes on when a process is lost", within=">= 1")
    preempt_signals: str = _flag(CKPT, ",".join(USUAL), "signals that make a run save and stop with exit code 75; "
                                 "none: leave them alone", several=True)
    requeue: bool = _flag(CKPT, True, "after such a signal, have Slurm queue the batch job again")
    resume_checkpoint: bool = _flag(CKPT, False, "go on from the newest complete checkpoint in model_dir")
    accept_changed_classes: bool = _flag(CKPT, False, "resume although classes of the training data were renamed or removed: what is new "
                                         "takes the outputs of what is gone")
    nan_rollback: int = _flag(CKPT, 0, "when a loss or gradient is not finite, go back to the last checkpoint and leave out the "
                              "images of that step, this many times in a run", within=">= 0")
    gather_checkpoints: bool = _flag(CKPT, False, "keep every checkpoint, whatever keep_checkpoints and keep_best say")
    no_checkpoints: bool = _flag(CKPT, False, "save nothing")
    checkpoint: str = _flag(CKPT, "best", "which to evaluate or apply: best, last, a name in model_dir such as step-00000319, or a checkpoint's folder",
                            ("inference_checkpoint",), path="path")
    weights: Literal["auto", "raw", "ema", "both"] = _flag(CKPT, "auto", "weights to evaluate or apply; auto: the better of the two "
                                                           "when the checkpoint was made; both: side by side, with --report")
    pretrained: bool = _flag(CKPT, False, "start from, evaluate or apply published weights of --arch: those of installed packages, CONVOY_WEIGHTS or "
                             "caches, or else Keras', downloaded (docs/train.md)")
    pretrained_from_file: str | None = _flag(CKPT, None, "start from, evaluate or apply these weights: .keras, .h5, "
                                             ".safetensors, PyTorch's .pth, or a checkpoint's folder", path="path")
    pretrained_partial: bool = _flag(CKPT, False, "load what fits of such a file; unset: refuse one that lacks, or has, more than a classifier")
    pretrained_strict: bool = _flag(CKPT, False, "refuse a file whose classifier does not fit, too")
    freeze_backbone: bool = _flag(CKPT, False, "train the classifier alone; the rest stays as it was loaded")
    weight_names: Literal["convoy", "torchvision", "timm", "nvidia", "transformers", "efficientnet_pytorch"] = _flag(
        CKPT, "convoy", "convert to .safetensors: whose names and layout to write")

    report: bool = _flag(EVAL, False, "--mode eval: also write a page with figures by class, confusions and calibration, and its numbers")
    report_dir: str | None = _flag(EVAL, None, "folder of the report; unset: model_dir/eval_report", path="path")
    report_checkpoints: str | None = _flag(EVAL, None, "evaluate these beside --checkpoint: last, a checkpoint's folder, or another run's "
                                           "model_dir, with commas between them", path="paths", several=True)
    report_image_sizes: str | None = _flag(EVAL, None, "evaluate at each of these sizes, pixels a side, such as 224,288; unset: image_size", several=True)
    eval_labels: str | None = _flag(EVAL, None, "labels to go by in the report instead of the data's: ReaL's real.json, or a file of names "
                                    "and labels (docs/evaluate.md)", path="path")

    predict_dir: str | None = _flag(PRED, None, "images to label: a folder (searched through), a file, a pattern such as "
                                    "'photos/*.jpg', a .txt of paths, or - for paths on standard input", ("to_predict",), path="path")
    image: str | None = _flag(PRED, None, "label one image, and answer in one line", path="path")
    predict_batch_size: int = _flag(PRED, 32, "images per step", within=">= 1")
    top_k: int = _flag(PRED, 5, "classes reported per image", within=">= 1")
    min_confidence: float = _flag(PRED, 0.0, "leave out classes of a lower probability", within="[0, 1]")
    flip_tta: bool = _flag(PRED, False, "average the probabilities of an image and its mirror image")
    label_file: str | None = _flag(PRED, None, "class names, one a line; unset: the training data's, or ImageNet's where it "
                                   "named none and there are 1,000", path="path")
    predict_formats: str = _flag(PRED, "table,jsonl,csv", "what to write: table (printed), jsonl, csv, parquet, gallery "
                                 "(a page to look at), with commas between them", several=True)
    output: str | None = _flag(PRED, None, "where predictions go, without ending (unset: model_dir/predictions); for "
                               "--mode convert the file to write, for --mode export the folder (unset: model_dir/export), for benchmarks the report without ending, for --mode report --runs the page (unset: "
                               "comparison.html in model_dir, or else in the current folder)", path="path")
    export_format: str = _flag(PRED, "savedmodel", "what --mode export writes: savedmodel, tflite, tflite-int8, onnx, with "
                               "commas between them", several=True)
    export_samples: int = _flag(PRED, 500, "most images on which an export is compared with the Keras model: of "
                                "--predict_dir, or else of data_dir; 0: it is not compared", within=">= 0")
    export_backbone: bool = _flag(PRED, False, "let exports put out the features before the classifier too")
    overwrite: bool = _flag(PRED, False, "replace what --mode export or convert wrote before")

    benchmark_batch_sizes: str | None = _flag(BENCH, None, "images per process and step, with commas between them; sweep: 1, 2, 4, … to "
                                              "the documents' largest; unset: train_batch_size or eval_batch_size", several=True)
    benchmark_precisions: str | None = _flag(BENCH, None, "fp32, tf32, amp, bf16, fp16, with commas between them; unset: as the other flags say", several=True)
    benchmark_xla: str | None = _flag(BENCH, None, "off, on, or off,on to compare; unset: as --use_xla says", several=True)
    benchmark_formats: str = _flag(BENCH, "keras", "inference: keras, savedmodel, tflite, tflite-int8, onnx, with commas between them, each "
                                   "in its own runtime", several=True)
    benchmark_warmup: int = _flag(BENCH, 10, "iterations before those that are timed", within=">= 1")

    log_filename: str = _flag(LOG, "log.json", "dllogger file inside model_dir", path="inside")
    log_steps: int = _flag(LOG, 100, "steps between two log lines", within=">= 1")
    training_report: bool = _flag(LOG, True, "after training, write model_dir/report.html, a page about the run, as --mode report does")
    report_images: int = _flag(LOG, 12, "training images, and predictions explained by Grad-CAM, in a report; 0: none", within=">= 0")
    runs: list[str] | None = _flag(LOG, None, "--mode report: the folders of runs to compare in one page, with spaces between them", path="path")
    trackers: str = _flag(LOG, "none", "where else rank 0 reports: tensorboard, wandb (Weights & Biases), mlflow, with commas between them", several=True)
    tracker_project: str = _flag(LOG, "convoy", "project at Weights & Biases, experiment in MLflow")
    run_name: str | None = _flag(LOG, None, "name of the run there; unset: model_dir's last folder")
    enable_tensorboard: bool = _flag(LOG, False, "the same as --trackers tensorboard: figures and pictures in model_dir/tensorboard")
    profile_steps: str | None = _flag(LOG, None, "FIRST-LAST: profile these steps of a run on rank 0, for TensorBoard's profile "
                                      "page, into model_dir/tensorboard")
    verbose: bool = _flag(LOG, False, "show TensorFlow's own messages")
    # fmt: on

    def to_yaml(self) -> str:
        """The settings as YAML text that `--config` reads back."""
        return self._yaml

    @cached_property
    def _yaml(self) -> str:  # every checkpoint holds it, and it takes 20 ms
        values = asdict(self)
        with suppress(OSError):  # the folder may be gone
            values[MADE_IN] = os.getcwd()
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)

    def with_(self, **changes: Any) -> Config:
        """A copy with some settings changed."""
        return replace(self, **changes)


def defaults(arch: str) -> dict[str, Any]:
    """Every setting's default for an architecture, by flag name. Unknown names get the EfficientNet ones."""
    from convoy.model.catalog import get_arch

    values = {f.name: f.default for f in fields(Config) if f.default is not MISSING}
    values["arch"] = arch
    try:
        entry = get_arch(arch)
    except ValueError:
        return values  # refused later, with the nearest name
    published = {"interpolation": entry.interpolation, "crop_padding": entry.crop_padding}
    values |= {name: value for name, value in published.items() if value is not None}
    return values | FAMILY_DEFAULTS.get(entry.family, {})


@cache
def kinds() -> dict[str, Kind]:
    """What each flag takes, by name."""
    hints = get_type_hints(Config)
    return {
        f.name: Kind.of(
            f.name, hints[f.name], path=f.metadata["path"], several=f.metadata["several"]
        )
        for f in fields(Config)
    }


@cache
def _spellings() -> dict[str, str]:
    """The names of all flags, and their older ones, to the names in `Config`."""
    return {name: f.name for f in fields(Config) for name in (f.name, *f.metadata["aliases"])}


def settle(written: str, value: Any, where: str = "") -> tuple[str, Any]:
    """The name and the value of one setting, from what was written.

    Args:
        where: of a file, what errors begin with, such as "b0.yaml, line 3: "; they name the flag otherwise.

    Raises:
        ConfigError: there is no such setting, or it does not take this value.
    """
    if written not in _spellings():
        raise ConfigError(f"{where}there is no setting {written}{_nearest(written)}")
    name = _spellings()[written]
    try:
        return name, kinds()[name](value)
    except ValueRefused as error:
        raise ConfigError(f"{where or '--'}{name} {error}") from error


def _nearest(written: str) -> str:
    near = difflib.get_close_matches(written.strip("-").lower(), _spellings(), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; --help lists all"


def load_config(path: str | Path | Remote) -> Config:
    """Reads a `config.yaml` that a run left in its model_dir.

    Raises:
        ConfigError: the file is missing, or holds what are not settings.
    """
    try:
        settings = read_settings(path)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    except TextError as error:
        raise ConfigError(str(error)) from error
    settings = {name: setting for name, setting in settings.items() if name != MADE_IN}
    unknown = sorted(set(settings) - set(_spellings()))
    if unknown:
        raise ConfigError(f"{path} has settings that do not exist here: {', '.join(unknown)}")
    values = dict(settle(n, s.value, f"{path}, line {s.line}: ") for n, s in settings.items())
    values.setdefault("defaults", "documents")  # of a run made before there were others
    values.setdefault("exif_orientation", "ignore")  # the same
    return Config(**(defaults(values.get("arch", Config.arch)) | values))
