"""Trains like timm's `train.py DIR --model efficientnet_b0` with its default settings.

    python -m benchmarks.first_run.timm_script DIR SIZE EPOCHS SEED

timm's wheel has no train.py, so this script uses the parts of timm that train.py uses, as with its
flags `--num-classes N --img-size SIZE --seed SEED`. A batch has 128 images, or all images if there
are fewer: train.py drops an incomplete last batch.

The last line of output is {"top1": …, "epochs": …}.
"""

import json
import sys
from pathlib import Path

from benchmarks.contenders.pytorch import import_torch

torch = import_torch()
from timm.data import create_dataset, create_loader, resolve_data_config  # noqa: E402
from timm.loss import LabelSmoothingCrossEntropy  # noqa: E402
from timm.models import create_model  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402
from timm.utils import random_seed  # noqa: E402

folder, size, epochs, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
cpu = torch.device("cpu")
random_seed(seed, 0)
classes = len(list(Path(folder, "train").iterdir()))
model = create_model("efficientnet_b0", num_classes=classes, drop_rate=0.0)
data = resolve_data_config({"img_size": size}, model=model)
sets = {
    split: create_dataset("", root=folder, split=split, is_training=split == "train", seed=seed)
    for split in ("train", "validation")
}
batch = min(128, len(sets["train"]))
common = {k: data[k] for k in ("input_size", "mean", "std", "crop_pct")} | {
    "device": cpu, "use_prefetcher": False, "num_workers": 0, "batch_size": batch
}  # fmt: skip
train = create_loader(
    sets["train"], is_training=True, interpolation="random", color_jitter=0.4,
    scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, **common
)  # fmt: skip
val = create_loader(sets["validation"], interpolation=data["interpolation"], **common)
optimizer = create_optimizer_v2(
    model, opt="sgd", lr=0.1 * batch / 256, weight_decay=2e-5, momentum=0.9
)
scheduler, epochs = create_scheduler_v2(
    optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=5, warmup_lr=1e-5, min_lr=0.0,
    updates_per_epoch=len(train),
)  # fmt: skip
loss_of = LabelSmoothingCrossEntropy(0.1)
EVERY = 5  # epochs between evaluations, to save time; train.py evaluates after each
best = 0.0
for epoch in range(epochs):
    scheduler.step(epoch)
    model.train()
    for images, labels in train:
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
    if epoch % EVERY and epoch < epochs - 1:
        continue
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in val)
    best = max(best, 100 * right / len(sets["validation"]))
    if epoch % 20 == 0:
        print(epoch, loss.item(), 100 * right / len(sets["validation"]), flush=True)
print(json.dumps({"top1": best, "epochs": epochs}))
