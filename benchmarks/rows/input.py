"""Defines rows that compare input pipelines, and training on real with synthetic images."""

from __future__ import annotations

from benchmarks.harness.row import Entry, Goal, Row

OURS, DALI_STAGE = "Convoy", "Convoy, --data_backend dali-cpu"
TF_IMAGE, KERAS = "tf.data and tf.image", "Keras preprocessing layers"
PIL, DALI = "torchvision on Pillow, worker processes", "DALI alone, CPU"
POLICY = {"none": "", "autoaugment": ", AutoAugment", "randaugment": ", RandAugment"}
FIGURES = {
    "core_speed": "images/s and core",
    "speed": "images/s, all cores",
    "cpu_ms": "CPU ms/image",
}
NOTE = (
    "Processor time includes worker processes. Contenders hold prefetched batches between turns,"
    " as many after a turn as before it: at most 1 s of the slower ones' work, with turns of 8 s."
)


def _input(augmenter: str) -> Row:
    entries = [
        Entry(TF_IMAGE, "inputs:tf_image", {"augmenter": augmenter}),
        Entry(OURS, "inputs:ours", {"augmenter": augmenter, "data_backend": "tfdata"}),
        Entry(DALI_STAGE, "inputs:ours", {"augmenter": augmenter, "data_backend": "dali-cpu"}),
        Entry(PIL, "inputs:pil_loader", {"augmenter": augmenter}),
        Entry(DALI, "inputs:dali_alone", {"augmenter": augmenter}),
    ]
    if augmenter != "autoaugment":  # Keras lacks it
        entries.append(Entry(KERAS, "inputs:keras_layers", {"augmenter": augmenter}))
    goals = []
    if augmenter == "autoaugment":
        goals = [Goal(OURS, TF_IMAGE, 2.2, "core_speed"), Goal(OURS, PIL, 2, "core_speed")]
    title = f"Input: JPEGs of 500 × 375 to batches of 64 × 224 px{POLICY[augmenter]}"
    return Row(f"input-{augmenter}", title, entries, goals, FIGURES, 5, 8.0, NOTE)


def _end_to_end() -> Row:
    synthetic, real = "synthetic images", "JPEGs in TFRecords, AutoAugment"
    sizes = {"arch": "efficientnet-b0", "size": 224, "batch": 16}
    as_the_program = {"TF_ENABLE_ONEDNN_OPTS": "1"}  # utils/machine/device.py explains why
    entries = [
        Entry(synthetic, "e2e:trainer", sizes, as_the_program),
        Entry(real, "e2e:trainer", {**sizes, "augmenter": "autoaugment"}, as_the_program),
    ]
    return Row(
        "end-to-end",
        "The trainer on real and on synthetic images, EfficientNet-B0, 224 px, batch 16",
        entries,
        [Goal(real, None, 2, "wait", at_least=False)],
        {"speed": "images/s", "wait": "waiting for data, % of the time", "cpu_ms": "CPU ms/image"},
        target_s=15.0,
        note="If training runs on the CPU, preparing images takes processor time from it. The ratio"
        " includes that; the wait does not.",
    )


ROWS = [
    *(_input(augmenter) for augmenter in POLICY),
    _end_to_end(),
]
