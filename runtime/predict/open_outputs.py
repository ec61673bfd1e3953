"""Opens the outputs for `--predict_formats`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from convoy.runtime.predict.outputs import (
    ENDINGS,
    FORMATS,
    Csv,
    JsonLines,
    Output,
    Parquet,
    Table,
    part_of,
    predict_formats,
)
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote, in_folder, path_of
from convoy.utils.optional import known
from convoy.utils.own_files import is_own


def open_outputs(
    stack: ExitStack, config: Config, columns: int, count: int, title: str
) -> list[Output]:
    """Opens the outputs for `--predict_formats`; the stack closes them.

    Args:
        stack: closes the outputs.
        config: the flags.
        columns: classes reported per image.
        count: number of images to expect.
        title: the model's description, for people.

    Raises:
        ConfigError: a file to be written has the name of a folder, or of a file that is no
            earlier prediction, or another prediction is writing it.
    """
    places, where = _places(config), known(config.predict_dir)
    makers = {
        "jsonl": lambda path: JsonLines(path),
        "csv": lambda path: Csv(path, columns),
        "parquet": lambda path: Parquet(path, columns),
        "gallery": lambda path: _gallery(path, count, title, where),
        "table": lambda _: Table(count, where),
    }
    outputs = []
    # The table is closed, and so printed, last.
    for name in sorted(predict_formats(config.predict_formats), key=FORMATS.index):
        path = places.get(name)
        replaces = path is not None and path.exists()
        for place in (path, part_of(path)) if isinstance(path, Path) else ():
            if place.is_dir():
                raise ConfigError(
                    f"{place} is a folder, and a file of predictions would get this name: move it,"
                    " or choose other names with --output"
                )
        if path is not None and replaces and _is_foreign(name, path):
            raise ConfigError(
                f"{path} exists, and no prediction wrote it: choose another name with --output, or"
                " move the file"
            )
        output = stack.enter_context(makers[name](path))
        output.replaces = replaces
        outputs.append(output)
    return outputs


def _places(config: Config) -> dict[str, Path | Remote]:
    """Returns each format's file, and creates the folder."""
    out = path_of(config.model_dir) / "predictions"
    if config.output:
        out = in_folder(config.output, "predictions")
    if out.name.lower().endswith(ENDINGS):  # each format adds its own ending
        out = out.with_name(out.name.rsplit(".", 1)[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    page = out.with_name(f"{out.name}-gallery.html" if config.output else "gallery.html")
    files = {name: out.with_name(f"{out.name}.{name}") for name in ("jsonl", "csv", "parquet")}
    return files | {"gallery": page}


def _is_foreign(name: str, path: Path | Remote) -> bool:
    """Returns whether a file is no earlier prediction, so that it must stay."""
    kind = "page" if name == "gallery" else f"predictions.{name}"
    return isinstance(path, Path) and not is_own(path, kind)


def _gallery(*args: Any) -> Output:
    from convoy.runtime.predict.gallery import Gallery  # imports jinja2

    return Gallery(*args)
