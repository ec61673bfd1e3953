"""`prepare tfds`: packs a TensorFlow Dataset into our shards; --download prepares it first."""

from __future__ import annotations

from convoy.dataloader.errors import DataError, NoSplit
from convoy.dataloader.prepare.pack import Packing, pack, print_found
from convoy.dataloader.prepare.shards import Item
from convoy.dataloader.sources.tfds import TFDSSource
from convoy.utils.extras import how_to_install


def prepare_tfds(
    name: str,
    data_dir: str,
    out: str | None,
    packing: Packing,
    *,
    download: bool = False,
) -> int:
    """Packs the train split and, if it exists, the validation (or test) split.

    Args:
        name: `name`, `name/config` or `name/config:version`, with or without `tfds:` before it.
        data_dir: TFDS's folder.
        out: where to write; None with `download` stops after TFDS has prepared the data set, and
            `--dataset tfds:name` can train from that.
        packing: how.
        download: let TFDS download and prepare it first; otherwise nothing is downloaded.

    Returns:
        The exit status, see `pack`.

    Raises:
        DataError: the data set is not prepared or not whole, is not for image classification, or
            `out` is not free.
    """
    dataset = f"tfds:{name.removeprefix('tfds:')}"
    if download:
        _download(dataset.removeprefix("tfds:"), data_dir)
    if out is None:
        if not download:
            raise DataError("Nothing to do: give --out, or --download, or both.")
        print(f"Prepared. Train with: --dataset {dataset} --data_dir {data_dir}")
        return 0
    splits: dict[str, list[Item]] = {}
    names: list[str] = []
    for split in ("train", "validation"):
        try:
            source = TFDSSource(data_dir, dataset, split)
        except NoSplit:
            if not splits:
                raise
            continue
        print_found(source)
        if source.damage:
            raise DataError(next(iter(source.damage.values())))
        names = source.class_names or [str(i) for i in range(source.num_classes or 0)]
        splits[split] = _items(source, split)
    return pack(out, f"tfds {name}", splits, names, packing)


def _items(source: TFDSSource, split: str) -> list[Item]:
    keys = (source.layout.image, source.layout.label)
    items = []
    for i in range(source.num_examples):
        path, offset, size = source.payload_of(i)
        items.append(Item(path, f"{split}/{i:08d}", -1, offset, size, keys))
    return items


def _download(name: str, data_dir: str) -> None:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"--download needs TensorFlow Datasets ({error}). Install it with: "
            f"{how_to_install('tfds')}"
        ) from error
    tfds.builder(name, data_dir=data_dir).download_and_prepare()
