"""Defines rows that compare whole commands, from process start to end: time and peak memory."""

from __future__ import annotations

from benchmarks.harness.row import Entry, Goal, Row

BARE, OURS = "bare keras.applications script", "Convoy"
IN_ONNX, IN_TENSORFLOW = "Convoy, --engine onnx", "Convoy, --engine tensorflow"
TIMM = "timm's ONNX file, a script with worker processes"
FIGURES = {"ms": "ms", "peak_mib": "peak, MiB"}
QUICK = 500.0  # ms
_NETWORKS = {
    "EfficientNetB0": "efficientnet-b0",
    "EfficientNetB4": "efficientnet-b4",
    "ResNet50": "resnet50",
}
"""Names in keras.applications -> ours."""


def _against_bare(name: str, title: str, items: int, bare: list[str], ours: list[str]) -> Row:
    """Returns a row that compares our command with a short script that does the same."""
    entries = [
        Entry(BARE, "starts:command", {"arguments": [*bare], "items": items}),
        Entry(OURS, "starts:command", {"arguments": ["main.py", *ours], "items": items}),
    ]
    goals = [Goal(OURS, BARE, 1.0, figure, at_least=False) for figure in FIGURES]
    return Row(name, title, entries, goals, FIGURES, rounds=5)


def _train(
    steps: int, batch: int = 32, network: str = "EfficientNetB0", size: int = 224
) -> tuple[list[str], list[str]]:
    """Returns the bare script's command and ours for training on the same photographs.

    Both train without augmentation, moving average and checkpoints.

    Args:
        steps, batch: of the training.
        network: a key of `_NETWORKS`.
        size: height and width of the images.
    """
    ours = ["--mode", "train", "--data_dir", "{data}", "--model_dir", "{new}/run"]
    ours += ["--max_epochs", "1", "--warmup_epochs", "0", "--steps_per_epoch", str(steps)]
    ours += ["--train_batch_size", str(batch), "--optimizer", "momentum", "--weight_decay", "0"]
    ours += ["--augmenter_name", "none", "--no_checkpoints", "--no-training_report"]
    ours += ["--arch", _NETWORKS[network], "--image_size", str(size)]
    bare = ["benchmarks/contenders/bare/train.py", "{data}/train", str(steps), str(batch)]
    return [*bare, network, str(size)], ours


def _recomputing(name: str, network: str, size: int, batch: int) -> Row:
    """Returns a row of five training steps, with activations kept and computed again.

    What a step costs then is in the rows called recompute-….
    """
    bare, ours = _train(5, batch, network, size)
    commands = {BARE: bare, OURS: ["main.py", *ours]}
    commands |= {
        f"{OURS}, --recompute {how}": ["main.py", *ours, "--recompute", how]
        for how in ("norms", "blocks")
    }
    entries = [
        Entry(label, "starts:command", {"arguments": command, "items": 5 * batch})
        for label, command in commands.items()
    ]
    _, norms, blocks = (entry.label for entry in entries[1:])
    goals = [Goal(norms, BARE, 0.55, "peak_mib", at_least=False)]
    goals += [Goal(blocks, BARE, 0.35, "peak_mib", at_least=False)]
    title = f"Five training steps, {network}, {size} px, batch {batch}"
    return Row(name, title, entries, goals, FIGURES, rounds=5)


def _predict(engine: str, *images: str, run: str = "{run}") -> list[str]:
    """Returns our command for labelling photographs."""
    flags = ["--mode", "predict", "--model_dir", run, "--engine", engine, *images]
    return ["main.py", *flags, "--output", "{new}/found"]


def _label(name: str, title: str, items: int, flag: str, place: str, seconds: float) -> Row:
    """Returns a row that compares a bare script with both engines on the same photographs.

    Args:
        name, title, items: the row's.
        flag, place: which photographs.
        seconds: the goal for ONNX Runtime's time ÷ the script's.
    """
    commands = {BARE: ["benchmarks/contenders/bare/predict.py", "{weights}", place]}
    commands[IN_TENSORFLOW] = _predict("tensorflow", flag, place)
    commands[IN_ONNX] = _predict("onnx", flag, place)
    entries = [
        Entry(label, "starts:command", {"arguments": arguments, "items": items})
        for label, arguments in commands.items()
    ]
    goals = [Goal(IN_TENSORFLOW, BARE, 1.0, figure, at_least=False) for figure in FIGURES]
    goals += [
        Goal(IN_ONNX, BARE, seconds, "ms", at_least=False),
        Goal(IN_ONNX, BARE, 0.30, "peak_mib", at_least=False),
    ]
    return Row(name, title, entries, goals, FIGURES, rounds=5)


def _thousand(name: str, arch: str, run: str, timm: str, faster: float) -> Row:
    """Returns a row of whole processes that label 1,000 JPEGs of 500 × 375 px into a CSV file."""
    here = ("--predict_dir", "{thousand}", "--predict_formats", "csv")
    commands = {
        IN_TENSORFLOW: _predict("tensorflow", *here, run=run),
        IN_ONNX: _predict("onnx", *here, run=run),
        TIMM: ["benchmarks/contenders/bare/predict_onnx.py", timm, "{thousand}", "{new}/found.csv"],
    }
    entries = [
        Entry(label, "starts:command", {"arguments": arguments, "items": 1000})
        for label, arguments in commands.items()
    ]
    goals = [Goal(IN_ONNX, IN_TENSORFLOW, faster), Goal(IN_ONNX, TIMM, 1.1)]
    title = f"1,000 JPEGs of 500 × 375 px from a folder to CSV, {arch}"
    figures = {"speed": "images/s", **FIGURES}
    return Row(name, title, entries, goals, figures, rounds=5)


def _waits() -> Row:
    """Returns a row for how long predict's threads wait, neither decoding nor computing."""
    figures = {"speed": "images/s", "waits": "waiting, %"}
    label = "Convoy, --engine onnx, once started"
    entry = Entry(label, "labelling:waits", {"run": "{run}"})
    goals = [Goal(label, None, 3.0, "waits", at_least=False)]
    title = "Predict's pipeline, EfficientNet-B0"
    return Row("predict-waits", title, [entry], goals, figures, rounds=5)


def _quick() -> Row:
    """Returns a row of commands that do not need TensorFlow."""
    commands = {
        "an empty Python program": ["-c", "pass"],
        "Convoy, --help": ["main.py", "--help"],
        "Convoy, --mode list": ["main.py", "--mode", "list"],
    }
    entries = [
        Entry(label, "starts:command", {"arguments": arguments})
        for label, arguments in commands.items()
    ]
    goals = [Goal("Convoy, --help", None, QUICK, "ms", at_least=False)]
    return Row("start-help", "Answers at once", entries, goals, FIGURES, target_s=1.0)


def _compiled() -> Row:
    """Returns a row of first training steps with XLA.

    They run without a compilation cache, with an empty one, and with one filled by an earlier run.
    """
    _, ours = _train(1, batch=4)
    label, cached = "Convoy, --use_xla", "Convoy, --use_xla --xla_cache, {}"
    caches = {"a folder that is empty": "{new}/compiled", "that of a run before": "{compiled}"}
    arguments = {label: ["main.py", *ours, "--use_xla"]}
    arguments |= {
        cached.format(text): ["main.py", *ours, "--use_xla", "--xla_cache", folder]
        for text, folder in caches.items()
    }
    entries = [
        Entry(name, "starts:command", {"arguments": command, "items": 4})
        for name, command in arguments.items()
    ]
    goals = [Goal(entries[-1].label, label, 1.0, "ms", at_least=False)]
    title = "The first training step compiled by XLA, EfficientNet-B0, batch 4"
    return Row("start-xla", title, entries, goals, FIGURES, rounds=5)


ROWS = [
    _quick(),
    _label(
        "start-predict",
        "The first image labelled, EfficientNet-B0",
        1,
        *("--image", "{image}"),
        seconds=0.12,
    ),
    _against_bare(
        "start-train", "The first training step, EfficientNet-B0, batch 32", 32, *_train(1)
    ),
    _compiled(),
    _against_bare(
        "memory-train", "Five training steps, EfficientNet-B0, batch 32", 160, *_train(5)
    ),
    _recomputing("memory-b0", "EfficientNetB0", 224, 32),
    _recomputing("memory-b4", "EfficientNetB4", 380, 4),
    _recomputing("memory-resnet50", "ResNet50", 224, 16),
    _label(
        "memory-predict",
        "200 photographs labelled, EfficientNet-B0",
        200,
        *("--predict_dir", "{photos}"),
        seconds=1.0,
    ),
    _thousand("predict-b0", "EfficientNet-B0", "{run}", "{timm}", 1.8),
    _thousand("predict-resnet50", "ResNet50", "{resnet50}", "{timm_resnet50}", 1.3),
    _waits(),
]
