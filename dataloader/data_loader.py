"""The interface of loaders: what training and evaluation need from one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import tensorflow as tf

    from convoy.dataloader.sources.source import Source


class Batch(NamedTuple):
    """A batch of one rank.

    Attributes:
        images: `(B, H, W, 3)`, uint8, or float32 if images are mixed. From a loader with a
            `prepare`, `augment.device_plan.Planned` instead, which `prepare` turns into images.
        labels: int32 `(B,)`, or float32 `(B, classes)`, soft labels.
        weights: float32 `(B,)`; 0 in slots that do not count.
    """

    images: Any
    labels: tf.Tensor
    weights: tf.Tensor


class DataLoader(Protocol):
    """One rank's batches of one split.

    `loader.Loader`, `dali.DaliLoader` and `synthetic.SyntheticLoader` implement it; `loader.Loader`
    documents the other attributes.

    Attributes:
        source: the source of the examples; None if they are synthetic.
        list_digest: a hash of the examples and their order; None if they are synthetic.
        image_size: pixels a side.
        batch_size: images per rank and batch.
    """

    num_examples: int
    num_classes: int
    global_batch: int
    steps_per_epoch: int
    lenient: bool
    bad_examples: dict[int, str]
    identities: dict[int, dict[str, Any]]

    @property
    def source(self) -> Source | None:
        """The examples; None if the images are made up."""

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in order; None if the data have none."""

    @property
    def list_digest(self) -> str | None:
        """A hash of the list of examples; None if there is no list."""

    @property
    def prepare(self) -> Callable[[Any], tf.Tensor] | None:
        """Turns a batch's first element into images, within the step; None if it holds images."""

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""

    @property
    def batch_size(self) -> int:
        """Images per batch of this rank."""

    @property
    def epoch_length(self) -> int:
        """Examples that count in one epoch, over all ranks."""

    def look_again(self) -> None:
        """Forgets which examples were unreadable: they may have been repaired since."""

    def batches(self, epoch: int, offset: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of an epoch from an offset, in examples over all ranks, to its end."""
        ...
