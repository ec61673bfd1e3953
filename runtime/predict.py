"""`--mode predict`: labels for a folder of images, with the preprocessing of evaluation."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dataloader.decode import eval_decode
from runtime.build import eval_crop
from runtime.config import Config, ConfigError
from runtime.trained import trained_model
from utils.files import path_of

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
# Rows of the printed table, spread evenly over the images; the files hold all.
TABLE_ROWS = 30


def find_images(folder: str | Path) -> list[Path]:
    """Every image below a folder, sorted; endings in any case, hidden files and folders left out.

    Symbolic links to folders are not followed, so that a loop of links ends.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(root) / n for n in files if n.lower().endswith(ENDINGS) and not n.startswith(".")
        ]
    return sorted(found)


def predict(config: Config) -> dict[str, Any]:
    """Labels the images of `--predict_dir`: prints a table, writes JSON lines and CSV.

    An image that cannot be read gets a row with the reason, and the others are labelled all the
    same.

    Returns:
        `images` labelled, `failed` images, and the paths `jsonl` and `csv`.

    Raises:
        ConfigError: there are no images.
        CheckpointError: there is no checkpoint.
    """
    files = find_images(config.predict_dir)
    if not files:
        raise ConfigError(
            f"--predict_dir {config.predict_dir} holds no images ({', '.join(ENDINGS)})"
        )
    trained = trained_model(config)
    model = trained.model
    print(f"predicting with {trained.text}", flush=True)
    names = class_names(trained.class_names, model.output_shape[-1])
    out = path_of(config.output) if config.output else path_of(config.model_dir) / "predictions"
    out.parent.mkdir(parents=True, exist_ok=True)
    json_path, csv_path = out.with_name(out.name + ".jsonl"), out.with_name(out.name + ".csv")
    top_k = min(config.top_k, len(names))
    shown, failed = [], 0
    spread = set(np.linspace(0, len(files) - 1, TABLE_ROWS).round().astype(int).tolist())
    # A file name that is no UTF-8 is escaped, in JSON's own way, rather than ending the run.
    writing = {"encoding": "utf-8", "errors": "backslashreplace"}
    with ExitStack() as stack:
        lines = stack.enter_context(json_path.open("w", **writing))
        table = csv.writer(stack.enter_context(csv_path.open("w", newline="", **writing)))
        columns = [f"{kind}_{i}" for i in range(1, top_k + 1) for kind in ("class", "probability")]
        table.writerow(["path", *columns, "error"])
        for number, row in enumerate(label(model, files, config, names, top_k)):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            cells = [
                cell for p in row["predictions"] for cell in (p["class"], f"{p['probability']:.6f}")
            ]
            table.writerow([row["path"], *(cells or [""] * len(columns)), row["error"] or ""])
            failed += row["error"] is not None
            if number in spread or row["error"]:
                shown.append(row)
    _print_table(shown, len(files), config.predict_dir)
    print(
        f"{len(files) - failed} images labelled, {failed} unreadable; wrote {json_path} and"
        f" {csv_path}",
        flush=True,
    )
    if failed:
        print(
            f"convoy: {failed} of {len(files)} images could not be read (see the rows above)",
            file=sys.stderr,
        )
    return {
        "images": len(files) - failed,
        "failed": failed,
        "jsonl": str(json_path),
        "csv": str(csv_path),
    }


def class_names(names: list[str] | None, classes: int) -> list[str]:
    """A name for each output: the training data's, or else the class number."""
    names = list(names or [])
    return names[:classes] + [str(i) for i in range(len(names), classes)]


def label(
    model: Any, files: list[Path], config: Config, names: list[str], top_k: int
) -> Iterator[dict[str, Any]]:
    """Yields a row for each file, in order: path, predictions (class, index, probability), error
    or None.
    """
    size, crop = model.input_shape[1], eval_crop(config)
    compiled = True if config.data_format == "channels_first" and config.use_xla else None
    forward = tf.function(
        lambda images: tf.nn.softmax(model(images, training=False)), jit_compile=compiled
    )

    def load(file: Path) -> np.ndarray | str:
        try:
            return eval_decode(tf.constant(file.read_bytes()), size, crop).numpy()
        except (OSError, tf.errors.OpError, ValueError) as error:
            return _reason(error)

    files_left = iter(files)
    with ThreadPoolExecutor(config.num_workers or os.cpu_count()) as pool:
        pending = _read_ahead(pool, load, files_left, config.predict_batch_size)
        for batch in pending:
            images = [image for _, image in batch if isinstance(image, np.ndarray)]
            probabilities = iter(())
            if images:
                # A short last batch is filled up, so that the model is compiled for one shape only.
                padding = [np.zeros_like(images[0])] * (config.predict_batch_size - len(images))
                probabilities = iter(forward(np.stack(images + padding)).numpy())
            for file, image in batch:
                row: dict[str, Any] = {"path": str(file), "predictions": [], "error": None}
                if isinstance(image, str):
                    row["error"] = image
                else:
                    p = next(probabilities)
                    row["predictions"] = [
                        {"class": names[i], "index": int(i), "probability": float(p[i])}
                        for i in np.argsort(-p, kind="stable")[:top_k]
                    ]
                yield row


def _read_ahead(
    pool: ThreadPoolExecutor, load: Any, files: Iterator[Path], batch: int
) -> Iterator[list[Any]]:
    """Batches of (file, image or reason); while one is used, the next is being decoded."""

    def submit() -> list[Any]:
        return [(file, pool.submit(load, file)) for file in islice(files, batch)]

    current = submit()
    while current:
        following = submit()
        yield [(file, future.result()) for file, future in current]
        current = following


def _reason(error: Exception) -> str:
    if isinstance(error, tf.errors.OpError):
        text = error.message.split("[Op:")[0].split("}} ")[-1].strip().splitlines()[0]
        return f"not a readable image ({text.rstrip('.')})"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _print_table(rows: list[dict[str, Any]], count: int, folder: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability", "next", box=None, pad_edge=False)
    table.columns[0].overflow = table.columns[3].overflow = "fold"
    table.columns[2].justify = "right"
    for row in rows:
        file = os.path.relpath(row["path"], folder) if Path(folder).is_dir() else row["path"]
        file = file.encode(errors="backslashreplace").decode()
        if row["error"]:
            table.add_row(Text(file), Text("unreadable", style="red"), "", Text(row["error"]))
            continue
        first, *others = row["predictions"]
        following = ", ".join(f"{p['class']} {100 * p['probability']:.1f}%" for p in others[:2])
        table.add_row(
            Text(file), Text(first["class"]), f"{100 * first['probability']:.1f}%", Text(following)
        )
    console = Console()
    console.print(table)
    if len(rows) < count:
        console.print(f"… {count - len(rows)} more in the files")
