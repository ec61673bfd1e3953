"""Feeds mutated image files to `prepare folder`, `verify`, the loader and predict.

    python tests/dataloader/fuzz_images.py --count 1000 --seed 0

Like `fuzz_records.py` it runs in its own process, prints one JSON object of counts, and fails with
a traceback at any error that the contracts do not name. No file may get lost: each program uses it
or names it with a reason. Every packed image must decode.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.prepare.folder import prepare_folder
from convoy.dataloader.prepare.pack import Packing
from convoy.dataloader.prepare.verify import bad_examples
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.folders import FolderSource
from convoy.model import build_model
from convoy.runtime.builders.trained_model import Trained
from convoy.runtime.predict.find_images import find_images
from convoy.runtime.predict.labeller import Labeller
from convoy.runtime.predict.tensorflow_engine import TensorflowEngine
from convoy.runtime.settings.config import Config
from tests.dataloader.mutations import images, mutate

PER_FOLDER = 100
SIZE = 32


def files(root, count, rng):
    """Writes mutated images of two classes, some with a wrong extension."""
    bases = images(rng)
    for i in range(count):
        folder = root / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        content = mutate(bases[rng.integers(len(bases))], rng)
        (folder / f"{i}{rng.choice(['.jpg', '.png', '.webp', '.tif', '.bmp'])}").write_bytes(
            content
        )


def check_reason(place, reason):
    if not reason or "\n" in reason or "Traceback" in reason:
        raise AssertionError(f"{place}: reason {reason!r}")


def check_verify(source, outcomes):
    """Returns the files that cannot be decoded completely."""
    found = bad_examples(source, 2)
    for bad in found:
        check_reason(bad.file, bad.reason)
    outcomes["bad to verify"] += len(found)
    return {bad.file for bad in found}


def check_loader(source, bad, outcomes):
    options = {"image_size": 16, "batch_size": 20, "num_workers": 2}
    options |= {"max_bad_examples": 1e6, "max_bad_eval_examples": 1e6}
    for training in (True, False):
        loader = Loader(source, InputOptions(**options), training=training)
        weights = sum(float(weights.numpy().sum()) for _, _, weights in loader.batches(0))
        found = loader.bad_examples
        if weights + len(found) != source.num_examples:
            raise AssertionError(f"{weights} + {len(found)} != {source.num_examples}")
        for number, reason in found.items():
            check_reason(number, reason)
            if source.files[number] not in bad:
                raise AssertionError(f"{reason}: good to verify")
        outcomes[f"left out by {'training' if training else 'evaluation'}"] += len(found)


def check_predict(root, count, bad, labeller, outcomes):
    refused = {}
    found = find_images(root, refused)
    rows = list(labeller.label(found, refused))
    if len(rows) != count or [row.path for row in rows] != [str(path) for path in found]:
        raise AssertionError(f"{len(rows)} rows of {count} files")
    for row in rows:
        if row.error is None:
            if len(row.predictions) != 2 or not np.isfinite(row.predictions[0].probability):
                raise AssertionError(f"{row.path}: {row.predictions}")
        else:
            check_reason(row.path, row.error)
            if row.path not in bad:
                raise AssertionError(f"{row.path}: bad to predict and good to verify")
    outcomes["unreadable to predict"] += sum(row.error is not None for row in rows)


def check_prepare(root, count, bad, outcomes):
    """Packed images decode completely, and the manifest lists all others."""
    out = root / "packed"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        prepare_folder(str(root), str(out), Packing())
    about = json.loads((out / "manifest.json").read_text())["splits"]["train"]
    if about["examples"] + len(about["bad"]) != count:
        raise AssertionError(f"{about['examples']} + {len(about['bad'])} != {count}")
    for one in about["bad"]:
        check_reason(one["file"], one["reason"])
    left = {str(root / "train" / one["file"]) for one in about["bad"]}
    outcomes["left out by prepare"] += len(left)
    outcomes["left out by prepare, good to verify"] += len(left - bad)
    if about["examples"]:
        packed = bad_examples(find_source(str(out), "train", tell=None), 2)
        if packed:
            raise AssertionError(f"packed and bad: {packed}")
        outcomes["packed"] += about["examples"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes, start = Counter(), time.monotonic()
    model = build_model("efficientnet-test", num_classes=2, image_size=SIZE)
    config = Config(num_workers=2, predict_batch_size=50)
    labeller = Labeller(TensorflowEngine(Trained(model, ""), config), ["a", "b"], config)
    for number, first in enumerate(range(0, options.count, PER_FOLDER)):
        rng = np.random.default_rng([options.seed, number])
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            count, root = min(PER_FOLDER, options.count - first), Path(folder) / "data"
            files(root, count, rng)
            source = FolderSource(str(root), "train")
            if source.num_examples != count:
                raise AssertionError(f"{source.num_examples} of {count} files are seen")
            bad = check_verify(source, outcomes)
            check_loader(source, bad, outcomes)
            check_predict(root / "train", count, bad, labeller, outcomes)
            check_prepare(root, count, bad, outcomes)
            outcomes["images"] += count
    print(json.dumps(dict(outcomes) | {"seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
