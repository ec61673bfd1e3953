"""Defines rows that compare training steps."""

from __future__ import annotations

from benchmarks.harness.row import Entry, Goal, Row

OURS, WITHOUT = "Convoy, {}", "Convoy without model/native, {}"
RECOMPUTE = "Convoy, --recompute {}"
FIT = "keras.applications + fit, {}"
EAGER, COMPILED = "timm, PyTorch eager, {}", "timm, torch.compile, {}"
MACS = {  # 10⁹ multiply-adds per image: ours from `--mode list`, and keras.applications'
    "efficientnet-b0": (0.386, 0.386),
    "efficientnet-b4": (4.39, 4.39),
    "resnet50": (4.09, 3.86),
}


def _training(name: str, arch: str, size: int, batch: int) -> Row:
    """Returns a row with both precisions: Convoy's faster one is compared with PyTorch's."""
    entries, goals = [], []
    sizes = {"arch": arch, "size": size, "batch": batch}
    ours, theirs = MACS[arch]
    for short, dtype, bound in (("fp32", "float32", 1.25), ("bf16", "bfloat16", 1.5)):
        arguments = {**sizes, "dtype": dtype}
        entries += [
            Entry(FIT.format(short), "training:keras_fit", arguments, work=theirs / ours),
            Entry(OURS.format(short), "training:ours", arguments),
            Entry(WITHOUT.format(short), "training:ours", {**arguments, "natively": False}),
            Entry(EAGER.format(short), "training:timm_step", {**arguments, "compiled": False}),
            Entry(COMPILED.format(short), "training:timm_step", {**arguments, "compiled": True}),
        ]
        goals.append(Goal(OURS.format(short), FIT.format(short), bound))
    every = [
        tuple(form.format(short) for short in ("fp32", "bf16")) for form in (OURS, EAGER, COMPILED)
    ]
    goals.append(Goal(every[0], every[1] + every[2], 1.0))
    title = f"Training step, {arch}, {size} px, batch {batch}"
    return Row(f"train-{name}", title, entries, goals, target_s=4.0)


def _recomputing(name: str, arch: str, size: int, batch: int) -> Row:
    """Returns a row of what `--recompute` costs; what it saves is in the rows called memory-…"""
    sizes = {"arch": arch, "size": size, "batch": batch, "dtype": "float32"}
    entries = [
        Entry(RECOMPUTE.format(how), "training:ours", {**sizes, "recompute": how})
        for how in ("none", "norms", "blocks")
    ]
    none, norms, blocks = (entry.label for entry in entries)
    goals = [Goal(norms, none, 0.97), Goal(blocks, none, 0.77)]
    title = f"Training step with less memory, {arch}, {size} px, batch {batch}"
    return Row(f"recompute-{name}", title, entries, goals, target_s=4.0)


ROWS = [
    _training("b0", "efficientnet-b0", 224, 16),
    _training("b4", "efficientnet-b4", 380, 4),
    _training("resnet50", "resnet50", 224, 16),
    _recomputing("b0", "efficientnet-b0", 224, 32),
    _recomputing("b4", "efficientnet-b4", 380, 4),
    _recomputing("resnet50", "resnet50", 224, 16),
]
