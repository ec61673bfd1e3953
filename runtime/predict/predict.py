"""Runs `--mode predict`: labels images, with the preprocessing of evaluation.

Imports no TensorFlow; `tensorflow_engine` does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convoy.dataloader.images.file_kinds import Left
from convoy.runtime.data.class_names import class_names
from convoy.runtime.predict.choice import Choice
from convoy.runtime.predict.engine import Engine
from convoy.runtime.predict.find_images import find_images
from convoy.runtime.predict.labeller import Labeller
from convoy.runtime.predict.open_outputs import open_outputs
from convoy.runtime.predict.outputs import (
    NOT_FINITE,
    Labelled,
    Output,
    Table,
    one_line,
    part_of,
    predict_formats,
)
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import likeness
from convoy.utils.errors import ConfigError
from convoy.utils.files import naming, size_of
from convoy.utils.optional import known
from convoy.utils.text import speed_text, tell

# Seconds between two lines of progress without a terminal for a bar.
SAY_EVERY = 30


Export = Callable[[Config, Choice, int, ExitStack], Choice]
"""Makes an export for a number of images if that pays: `export.for_labelling`."""


def predict(config: Config, choice: Choice, exported_if_it_pays: Export) -> dict[str, Any]:
    """Labels the images of `--predict_dir`, or answers for `--image` in one line.

    `--predict_formats` says where the labels go.

    An unreadable image gets a row with the reason, and the others are still labelled. The files of
    an earlier prediction stay until all images are labelled, or for good if none can be. Memory
    does not grow with the number of images, except for the list of their names.

    Args:
        config: the flags.
        choice: what computes the answers.
        exported_if_it_pays: may replace the choice when the images have been counted.

    Returns:
        `images` labelled, `failed` images, and the path of each file written, by format.

    Raises:
        ConfigError: there are no images, or the class names do not fit.
        CheckpointError: there is no checkpoint.
    """
    if config.image:
        return _answer(config, choice, Path(config.image))
    refused: dict[Path, str] = {}
    left = Left()
    files = find_images(known(config.predict_dir), refused, left)
    without = f"; left out: {text}" if (text := left.text()) else ""
    if not files:
        raise ConfigError(f"--predict_dir {config.predict_dir} holds no images{without}")
    print(f"{_images(len(files))} in {config.predict_dir}{without}", flush=True)
    with ExitStack() as stack:
        choice = exported_if_it_pays(config, choice, len(files), stack)
        return _label(config, choice, files, refused)


def _label(
    config: Config, choice: Choice, files: list[Path], refused: dict[Path, str]
) -> dict[str, Any]:
    """Labels files, of which some are `refused` for a reason; returns figures as `predict`."""
    engine = _engine(config, choice, len(files))
    print(f"predicting with {engine.text}{likeness(config, engine.size)}", flush=True)
    if choice.why_not:
        print(f"in TensorFlow: {choice.why_not}", flush=True)
    formats = predict_formats(config.predict_formats)
    labeller = Labeller(engine, _names(engine, config), config, thumbnails="gallery" in formats)
    count, start = _Count(), time.perf_counter()
    outputs: list[Output] = []
    waiting: list[Labelled] = []  # before the first label, which opens the outputs
    with _telling_of_parts(count, outputs), ExitStack() as stack:
        with _Progress(len(files)) as progress:
            for item in labeller.label(files, refused):
                count.add(item)
                if count.labelled and not outputs:
                    outputs += open_outputs(
                        stack, config, labeller.columns, len(files), engine.text
                    )
                if outputs:
                    _write([*waiting, item], outputs)
                    waiting = []
                else:
                    waiting.append(replace(item, thumbnail=None))  # of thousands, they would add up
                progress.advance()
        if waiting:  # nobody else would give the reasons
            _write(waiting, [stack.enter_context(Table(len(files), known(config.predict_dir)))])
    written = {output.format: str(output.path) for output in outputs if output.path}
    earlier = " (replacing earlier ones)" if any(o.replaces for o in outputs) else ""
    wrote = f"; wrote {' and '.join(written.values())}{earlier}" if written else ""
    if waiting:
        wrote = "; nothing written, and earlier results stay"
    labelled = count.text(config.min_confidence)
    tell(f"{labelled} in {time.perf_counter() - start:.1f} s{wrote}", sys.stdout)
    for line in count.warnings():
        tell(line)
    return {"images": count.labelled, "failed": len(files) - count.labelled, **written}


@contextmanager
def _telling_of_parts(count: _Count, outputs: Sequence[Output]) -> Iterator[None]:
    """Tells where the labels are if an error, or Ctrl-C, ends the prediction before its end."""
    try:
        yield
    except BaseException:
        parts = [part_of(output.path) for output in outputs if output.path]
        if have := " and ".join(str(p) for p in parts if p.exists() and size_of(p)):
            tell(f"convoy: labels so far, of {_images(count.labelled)}: {have}")
        raise


def _write(items: Sequence[Labelled], outputs: Sequence[Output]) -> None:
    for item in items:
        for output in outputs:
            with naming(output.path):
                output.write(item)


@dataclass
class _Count:
    """Counts results.

    Attributes:
        total: all files.
        unreadable, no_answer: files without a label, by reason.
        unsure: labelled files whose classes are all below --min_confidence.
    """

    total: int = 0
    unreadable: int = 0
    no_answer: int = 0
    unsure: int = 0

    def add(self, item: Labelled) -> None:
        """Counts one more file."""
        self.total += 1
        self.no_answer += item.error == NOT_FINITE
        self.unreadable += item.error not in (None, NOT_FINITE)
        self.unsure += not item.error and not item.predictions

    @property
    def labelled(self) -> int:
        """Returns the number of files with an answer."""
        return self.total - self.unreadable - self.no_answer

    def text(self, least: float) -> str:
        """Returns the numbers in words; `least` is --min_confidence."""
        notes = f", {self.no_answer} without an answer" if self.no_answer else ""
        notes += f"; {self.unsure} below --min_confidence {least:g}" if self.unsure else ""
        return f"{_images(self.labelled)} labelled, {self.unreadable} unreadable{notes}"

    def warnings(self) -> Iterator[str]:
        """Yields lines about files without a label."""
        if self.unreadable:
            yield (
                f"convoy: {self.unreadable} of {self.total} images could not be read (see their"
                " rows)"
            )
        if self.no_answer:
            yield f"convoy: {self.no_answer} of {self.total} images: {NOT_FINITE}"


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _answer(config: Config, choice: Choice, image: Path) -> dict[str, Any]:
    """Answers for `--image` in one line."""
    engine = _engine(config, choice, 1)
    (item,) = Labeller(engine, _names(engine, config), config).label([image])
    print(one_line(item), flush=True)
    return {"images": int(item.error is None), "failed": int(item.error is not None)}


def _engine(config: Config, choice: Choice, count: int) -> Engine:
    """Opens what computes the answers for a number of images."""
    if choice.file is not None:
        from convoy.runtime.predict.onnx_engine import OnnxEngine

        return OnnxEngine(choice.file, config, count, choice.class_names)
    from convoy.runtime.builders.trained_model import trained_model
    from convoy.runtime.predict.tensorflow_engine import TensorflowEngine

    return TensorflowEngine(trained_model(config), config, once=config.image is not None)


def _names(engine: Engine, config: Config) -> list[str]:
    return class_names(engine.class_names, engine.classes, config.label_file)


class _Progress:
    """Draws a bar on a terminal's stderr; elsewhere prints a line now and then."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._bar: Any = None
        self._start = self._said = time.monotonic()

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.BarColumn(bar_width=None),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[speed]}"),
                progress.TimeRemainingColumn(),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("", total=self.total, speed="")
            self._bar.start()
        return self

    def advance(self) -> None:
        """Counts one more image."""
        self.done += 1
        now = time.monotonic()
        speed = speed_text(self.done / max(1e-6, now - self._start))
        if self._bar:
            self._bar.update(0, advance=1, speed=speed)
        elif now - self._said >= SAY_EVERY:
            self._said = now
            text = f"{self.done} of {self.total} images, {speed}"
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
