"""Defines rows that compare inference: from uint8 images to probabilities, both in host memory."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.row import Entry, Goal, Row

PREDICT, OURS = "keras.applications, predict", "Convoy, --mode predict"
ONNX, TIMM_ONNX = "Convoy, ONNX", "timm, ONNX Runtime"
BATCHES = (1, 4, 16, 64)
V1_WORK = 3.86 / 4.09  # multiply-adds of keras.applications' ResNet50 over those of v1.5, ours


def _row(name: str, arch: str, size: int, batch: int) -> Row:
    network: dict[str, Any] = {"arch": arch, "size": size, "batch": batch}
    work = V1_WORK if arch == "resnet50" else 1.0

    def entry(label: str, maker: str, work: float = 1.0, **more: Any) -> Entry:
        return Entry(label, f"inference:{maker}", {**network, **more}, work=work)

    entries = [
        entry(PREDICT, "keras_model", work, how="predict"),
        entry("keras.applications, tf.function", "keras_model", work, how="function"),
        entry(OURS, "ours"),
        entry("Convoy, SavedModel", "export", name="savedmodel"),
        entry("Convoy, TFLite", "export", name="tflite"),
        entry("Convoy, TFLite int8", "export", name="tflite-int8"),
        entry(ONNX, "export", name="onnx"),
        entry("timm, eager", "timm_torch", channels_last=False, compiled=False),
        entry("timm, eager, channels last", "timm_torch", channels_last=True, compiled=False),
        entry("timm, torch.compile", "timm_torch", channels_last=True, compiled=True),
        entry(TIMM_ONNX, "timm_onnx"),
    ]
    goals = [Goal(ONNX, TIMM_ONNX, 1.0)]
    if batch == 1:
        goals.insert(0, Goal(ONNX, PREDICT, 3.0))
    if (arch, batch) == ("efficientnet-b0", 1):
        goals.append(Goal(ONNX, OURS, 3.0))
    figures = {"speed": "images/s", "ms": "ms a batch"}
    title = f"Inference, {arch}, {size} px, batch {batch}"
    return Row(f"inference-{name}-{batch}", title, entries, goals, figures, target_s=2.0)


INT8, BF16 = "Convoy, ONNX int8", "Convoy, --mode predict --use_amp"
LEAST_INT8 = {"efficientnet-b0": 1.2, "efficientnet-lite0": 1.8, "resnet50": 2.2}
LEAST_BF16 = {"efficientnet-b0": 1.2, "resnet50": 1.5}


def _fewer_bits(arch: str) -> Row:
    """Compares 8 and 16 bits with 32, in the same runtime; all layers of ONNX int8 have 8 bits."""
    network: dict[str, Any] = {"arch": arch, "size": 224, "batch": 16}
    entries = [
        Entry(OURS, "inference:ours", network),
        Entry(BF16, "inference:ours", {**network, "use_amp": True}),
        Entry(ONNX, "inference:export", {**network, "name": "onnx"}),
        Entry(INT8, "inference:export", {**network, "name": "onnx-int8"}),
    ]
    goals = [Goal(INT8, ONNX, LEAST_INT8[arch])]
    if arch in LEAST_BF16:
        goals.append(Goal(BF16, OURS, LEAST_BF16[arch]))
    figures = {"speed": "images/s", "ms": "ms a batch"}
    title = f"Fewer bits, {arch}, 224 px, batch 16"
    note = "The goals are for processors with instructions for 8-bit integers and bfloat16."
    name = f"inference-bits-{arch.removeprefix('efficientnet-')}"
    return Row(name, title, entries, goals, figures, target_s=2.0, note=note)


ROWS = [
    *(_row("b0", "efficientnet-b0", 224, batch) for batch in BATCHES),
    *(_row("resnet50", "resnet50", 224, batch) for batch in BATCHES),
    *(_row("b4", "efficientnet-b4", 380, batch) for batch in (1, 8)),
    *(_fewer_bits(arch) for arch in LEAST_INT8),
]
