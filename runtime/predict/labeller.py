"""Labels images: reads and decodes files beside the computation, and names the likeliest classes.

Imports no TensorFlow.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from convoy.runtime.predict.engine import Engine
from convoy.runtime.predict.find_images import read_image
from convoy.runtime.predict.outputs import NOT_FINITE, Labelled, Prediction
from convoy.runtime.settings.config import Config

# Side of the gallery's thumbnails in pixels; smaller squares keep their size.
THUMBNAIL = 160
_QUALITY = 80


@dataclass
class _Loaded:
    """A file's contents for the model.

    Attributes:
        file: its path.
        pixels: `(size, size, 3)` in 0-255, or None with an `error`.
        error: why it cannot be read.
        thumbnail: a small JPEG of the pixels, if requested.
    """

    file: Path
    pixels: np.ndarray | None = None
    error: str | None = None
    thumbnail: bytes | None = None


class Labeller:
    """Labels images with a model after the preprocessing of evaluation.

    Args:
        engine: computes the answers.
        names: one per class.
        config: for the number of threads, and the report on each image.
        thumbnails: add a small JPEG of the model's view to each result.
    """

    def __init__(
        self, engine: Engine, names: list[str], config: Config, thumbnails: bool = False
    ) -> None:
        self.names = names
        self.columns = min(config.top_k, len(names))
        self._engine, self._thumbnails = engine, thumbnails
        self._least, self._threads = config.min_confidence, config.num_workers or os.cpu_count()

    def label(
        self, files: list[Path], refused: dict[Path, str] | None = None
    ) -> Iterator[Labelled]:
        """Yields a result for each file, in order.

        Memory does not grow with their number.

        Args:
            files: paths.
            refused: reasons not to read some of them.
        """
        refused, waiting = refused or {}, iter(files)
        label = self._label_at_once if self._engine.at_once > 1 else self._label_ahead
        yield from label(iter(lambda: list(islice(waiting, self._engine.batch)), []), refused)

    def _label_ahead(
        self, batches: Iterator[list[Path]], refused: dict[Path, str]
    ) -> Iterator[Labelled]:
        """Decodes the next batch in threads while the engine, on all cores, computes one."""
        with ThreadPoolExecutor(self._threads) as pool:

            def submit() -> list[Future[_Loaded]]:
                return [pool.submit(self._load, file, refused) for file in next(batches, [])]

            current = submit()
            while current:
                following = submit()
                yield from self._answers([future.result() for future in current])
                current = following

    def _label_at_once(
        self, batches: Iterator[list[Path]], refused: dict[Path, str]
    ) -> Iterator[Labelled]:
        """Decodes and computes whole batches in threads of their own, so that no core waits."""

        def label(batch: list[Path]) -> list[Labelled]:
            return list(self._answers([self._load(file, refused) for file in batch]))

        with ThreadPoolExecutor(self._engine.at_once) as pool:
            # One more batch per thread, for while the first is being written.
            running = deque(
                pool.submit(label, batch) for batch in islice(batches, 2 * self._engine.at_once)
            )
            try:
                while running:
                    yield from running.popleft().result()
                    if batch := next(batches, []):
                        running.append(pool.submit(label, batch))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C, say

    def _load(self, file: Path, refused: dict[Path, str]) -> _Loaded:
        if file in refused:
            return _Loaded(file, error=refused[file])
        try:
            pixels = self._engine.square(read_image(file))
        except OSError as error:
            return _Loaded(file, error=error.strerror or str(error))
        except ValueError as error:
            return _Loaded(file, error=str(error))
        return _Loaded(file, pixels, thumbnail=thumbnail(pixels) if self._thumbnails else None)

    def _answers(self, batch: list[_Loaded]) -> Iterator[Labelled]:
        images = [loaded.pixels for loaded in batch if loaded.pixels is not None]
        answers = iter(self._engine.probabilities(np.stack(images)) if images else ())
        for loaded in batch:
            if loaded.pixels is None:
                yield Labelled(str(loaded.file), error=loaded.error)
            else:
                yield self._labelled(loaded, next(answers))

    def _labelled(self, loaded: _Loaded, probabilities: np.ndarray) -> Labelled:
        file = str(loaded.file)
        if not np.isfinite(probabilities).all():
            return Labelled(file, error=NOT_FINITE, thumbnail=loaded.thumbnail)
        return Labelled(file, self._best(probabilities), thumbnail=loaded.thumbnail)

    def _best(self, probabilities: np.ndarray) -> list[Prediction]:
        order = np.argsort(-probabilities, kind="stable")[: self.columns]
        return [
            Prediction(self.names[i], int(i), float(probabilities[i]))
            for i in order
            if probabilities[i] >= self._least
        ]


def thumbnail(pixels: np.ndarray) -> bytes:
    """Returns a small JPEG of `(size, size, 3)` in 0-255."""
    from PIL import Image

    image, stream = Image.fromarray(pixels.astype(np.uint8)), io.BytesIO()
    if image.width > THUMBNAIL:
        image = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    image.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
