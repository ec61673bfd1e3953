"""Reads what an ONNX file of `--mode export` says about itself, without loading its network.

ONNX's format is Protocol Buffers. Only the outermost fields are read here, so this takes no time
and needs no package.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from convoy.utils.errors import ConfigError

ENDING = ".onnx"
NAME = "model.onnx"
"""The file's name in the folder of an export."""
_GRAPH, _METADATA = 7, 14  # fields of ModelProto
_LONGEST_METADATA = 64 << 20
_CROP = {
    "padding": ("crop_padding", int),
    "method": ("eval_crop", str),
    "interpolation": ("interpolation", str),
    "exif_orientation": ("exif_orientation", str),
}


class OnnxFileError(ConfigError):
    """An ONNX file is not one of our exports, or is damaged. The text names it and says why."""


def is_onnx(path: str | os.PathLike[str] | None) -> bool:
    """Returns whether a path has the ending of ONNX files."""
    return path is not None and os.fspath(path).lower().endswith(ENDING)


def in_folder(path: str | os.PathLike[str]) -> Path | None:
    """Returns the ONNX file in an export's folder; None for other folders and for runs'."""
    folder = Path(path)
    exported = (folder / NAME).is_file() and not (folder / "checkpoints").is_dir()
    return folder / NAME if exported else None


def facts(path: str | Path) -> dict[str, Any]:
    """Returns the `metadata.json` inside an exported ONNX file.

    Raises:
        OnnxFileError: it cannot be read, is cut short, or is not one of our exports.
    """
    properties = _properties(Path(path))
    try:
        said = json.loads(properties["metadata.json"])
    except (KeyError, ValueError):
        raise OnnxFileError(
            f"{path} does not say how to prepare images, so Convoy did not export it: write one"
            " with --mode export --export_format onnx"
        ) from None
    if not isinstance(said, dict):
        raise OnnxFileError(f"{path}: its metadata are not those of an export of Convoy")
    return said


def settings(path: str | Path) -> dict[str, Any]:
    """Returns how an exported file is applied, by the names of `origin.how_applied`.

    Raises:
        OnnxFileError: as from `facts`, or a part of it is missing.
    """
    said = facts(path)
    try:
        prepared, names = said["preprocessing"], said["classes"]
        found = {"arch": _checked(said["arch"], str)}
        found["image_size"] = _checked(prepared["image_size"], int)
        crop = prepared["crop"]
        for name, (setting, kind) in _CROP.items():
            found[setting] = _checked(crop[name], kind)
        found["class_names"] = [_checked(name, str) for name in _checked(names, list)]
    except (KeyError, TypeError, ValueError) as error:
        missing = error.args[0] if error.args else error
        raise OnnxFileError(
            f"{path} does not say how to prepare images (its metadata lack a usable {missing}):"
            " export it again with this version"
        ) from None
    if crop.get("antialias"):
        raise OnnxFileError(f"{path} needs images resized with antialias, which is not known here")
    if like := prepared.get("evaluation_like"):
        found["evaluation_like"] = like
    return found


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} instead of {value!r}"[:60])
    return value


def _properties(path: Path) -> dict[str, str]:
    """Returns an ONNX file's metadata properties."""
    found, has_graph = {}, False
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            for field, length in _fields(stream, size):
                if field == _METADATA and length <= _LONGEST_METADATA:
                    key, value = _pair(stream.read(length))
                    found[key] = value
                else:
                    has_graph |= field == _GRAPH
                    stream.seek(length, os.SEEK_CUR)
    except OSError as error:
        raise OnnxFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except EOFError:
        raise OnnxFileError(f"{path} is cut short: copy or export it again") from None
    except ValueError:
        raise OnnxFileError(f"{path} is not an ONNX file, or is damaged") from None
    if not has_graph:
        raise OnnxFileError(f"{path} is not an ONNX file, or is cut short")
    return found


def _fields(stream: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yields number and length of each field with bytes; the caller reads or skips the bytes.

    Raises:
        EOFError: the file ends within a field.
        ValueError: it is not of this format.
    """
    while stream.tell() < size:
        field, kind = divmod(_number(stream), 8)
        if field == 0:
            raise ValueError(field)
        if kind == 0:
            _number(stream)
        elif kind in (1, 5):
            stream.seek(8 if kind == 1 else 4, os.SEEK_CUR)
        elif kind == 2:
            length = _number(stream)
            if stream.tell() + length > size:
                raise EOFError
            yield field, length
        else:
            raise ValueError(kind)


def _number(stream: BinaryIO) -> int:
    """Reads a variable-length number."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError(value)


def _pair(content: bytes) -> tuple[str, str]:
    """Reads a StringStringEntryProto: a key and its value."""
    texts = {1: "", 2: ""}
    stream = io.BytesIO(content)
    for field, length in _fields(stream, len(content)):
        texts[field] = stream.read(length).decode()
    return texts[1], texts[2]
