"""Reads PyTorch files (`torch.save`) without PyTorch and without running pickled code.

A PyTorch file is a pickle plus raw storages. Unpickling calls whatever the file names. So this
reader resolves names to a short list of its own stand-ins, and every other name to an inert object
that ignores calls and state: an optimizer's objects or an `argparse.Namespace` beside the weights
are harmless and do nothing. It never imports a name.

Two layouts, both documented by PyTorch's serialization notes: the zip (since 1.6: `data.pkl`, and a
`data/<key>` for each storage) and the older one (magic number, protocol, system, the pickle, list
of keys, then each storage's length and bytes).

Readers on PyPI: `ptloader` 0.3 reads only the zip layout and needs Python 3.11, `fickling` and
`picklescan` judge files but do not read them.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np

from convoy.utils.errors import UserError

Order: TypeAlias = Literal["<", ">"]

MAGIC = 0x1950A86A20F9469CFC6C  # of the older layout
PROTOCOL = 1001

# Expanded tensors (stride 0) may have more values than their storage; absurd ones are rejected.
MOST_EXPANDED_VALUES = 1 << 20

_DTYPES = {  # for storage types, by the start of their names
    **{"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bfloat16"},
    **{"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"},
    "Untyped": "u1",
}
_TORCH_DTYPES = {
    **{"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "bfloat16"},
    **{"int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?"},
}
_TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"}
_PARAMETERS = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
_REFUSED_OPCODES = frozenset({"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"})
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class WeightFileError(UserError, ValueError):
    """A weight file is damaged, or of an unreadable kind. The text says why."""


class _Malformed(Exception):
    """A PyTorch file cannot be read, for the reason in the text; callers add the file's name."""


class Inert:
    """Replaces an object of an unknown class. Ignores calls and state."""

    torch_name = "?"

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Accepts and ignores any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        """Returns itself."""
        return self

    # Pickles can also call it on the class itself (by setting "state" on it), so it has no `self`.
    def __setstate__(*ignored: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Does nothing."""
        pass

    def extend(self, values: Any) -> None:
        """Does nothing."""
        pass

    def add(self, value: Any) -> None:
        """Does nothing."""
        pass


class _Stateless:
    """Base of our objects in a pickle: the file cannot set their attributes."""

    __slots__ = ()

    def __setstate__(*ignored: Any) -> None:
        pass


class _Dict(dict):
    """Replaces an OrderedDict (dicts keep their order anyway)."""

    __slots__ = ()

    def __setstate__(*ignored: Any) -> None:
        pass


class _Storage(_Stateless):
    """An unread storage: `numel` values of `dtype` in the source under `key`."""

    __slots__ = ("_array", "dtype", "key", "numel", "source")

    def __init__(self, source: _Source, key: str, dtype: str, numel: int) -> None:
        self.source, self.key, self.dtype, self.numel = source, key, dtype, numel
        self._array: np.ndarray | None = None

    def array(self) -> np.ndarray:
        if self._array is None:
            self._array = decode(self.source.read(self.key), self.dtype, self.source.order)
            if len(self._array) < self.numel:
                raise _Malformed(f"storage {self.key} ends early")
        return self._array


class Tensor(_Stateless):
    """An unread tensor. `numpy()` reads it; bfloat16 becomes float32."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple, strides: tuple, dtype: str | None = None
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        self.dtype = dtype or storage.dtype
        values = math.prod(shape)
        available = storage.numel
        if self.dtype != storage.dtype:
            available = storage.numel * _width(storage.dtype) // _width(self.dtype)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if values and last >= available:
            raise _Malformed(f"a tensor of shape {shape} reaches beyond its storage")
        if values > max(available, MOST_EXPANDED_VALUES):
            raise _Malformed(f"a tensor of shape {shape} is larger than its storage")

    def numpy(self) -> np.ndarray:
        """Returns a contiguous copy."""
        flat = self.storage.array()
        if self.dtype != self.storage.dtype:
            flat = decode(flat.tobytes(), self.dtype, self.storage.source.order)
        if not math.prod(self.shape):
            return np.zeros(self.shape, flat.dtype)
        strides = [stride * flat.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )
        return np.array(view, order="C")  # a copy, because it outlives the storage, also if 0-d


class _Named(_Stateless):
    """A PyTorch name that is data: a storage type or a dtype."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class _OrderedDict(_Stateless):
    __slots__ = ()

    def __call__(self, items: Any = ()) -> _Dict:
        return _Dict(items)


class _Size(_Stateless):
    __slots__ = ()

    def __call__(self, sizes: Any = ()) -> tuple:
        return tuple(sizes)


class _Rebuild(_Stateless):
    """Replaces PyTorch's functions that build a tensor."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        if self.name in _PARAMETERS:
            return args[0]
        storage, offset, shape, strides = args[:4]
        dtype = None
        if self.name == "_rebuild_tensor_v3":
            dtype = args[6].dtype if isinstance(args[6], _Named) else None
            if dtype is None:
                return Inert()  # for example an 8-bit float
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(_is_count(n) for n in numbers):
            raise _Malformed("a tensor is described in an unknown way")
        return Tensor(storage, offset, tuple(shape), tuple(strides), dtype)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _width(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def decode(raw: bytes, dtype: str, order: Order = "<") -> np.ndarray:
    """Converts bytes to a flat array of type `dtype`; bfloat16 becomes float32."""
    if dtype == "bfloat16":  # it is the upper half of a float32
        halves = np.frombuffer(raw, f"{order}u2")
        return (halves.astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder(order)).astype(dtype, copy=False)


class _Source:
    """Locates storages. `order` is the byte order, "<" or ">"."""

    order: Order = "<"

    def read(self, key: str) -> bytes:
        raise NotImplementedError


class _ZipSource(_Source):
    def __init__(self, archive: zipfile.ZipFile, root: str, size: int) -> None:
        self.archive, self.root, self.left = archive, root, size
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order).strip() == b"big":
            self.order = ">"

    def read(self, key: str) -> bytes:
        info = self.archive.getinfo(f"{self.root}data/{key}")
        self.left -= info.file_size
        # PyTorch stores without compression, so that a small file cannot expand to a large one.
        if info.compress_type != zipfile.ZIP_STORED or self.left < 0:
            raise _Malformed("its storages are compressed or overlap, PyTorch writes neither")
        return self.archive.read(info)


class _OldSource(_Source):
    def __init__(self, stream: BinaryIO, little_endian: bool) -> None:
        self.stream, self.order = stream, "<" if little_endian else ">"
        self.places: dict[str, tuple[int, int]] = {}

    def find(self, keys: list, storages: dict[str, _Storage], end: int) -> None:
        """Records the place of each storage by reading their lengths."""
        for key in keys:
            storage = storages.get(key)
            if storage is None:
                raise _Malformed(f"storage {key!r} belongs to no tensor")
            (numel,) = struct.unpack(f"{self.order}q", self.stream.read(8))
            start, length = self.stream.tell(), numel * _width(storage.dtype)
            if numel < 0 or start + length > end:
                raise _Malformed(f"storage {key} ends early")
            self.places[key] = (start, length)
            self.stream.seek(start + length)

    def read(self, key: str) -> bytes:
        start, length = self.places[key]
        self.stream.seek(start)
        return self.stream.read(length)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, source: _Source) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self.source = source
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _OrderedDict()
        if module == "torch._utils" and name in _TENSORS | _PARAMETERS:
            return _Rebuild(name)
        if module == "torch" and name in _TORCH_DTYPES:
            return _Named(_TORCH_DTYPES[name])
        if (module, name) == ("torch", "Size"):
            return _Size()
        kind = name.removesuffix("Storage")
        if module in ("torch", "torch.cuda", "torch.storage") and kind in _DTYPES and kind != name:
            return _Named(_DTYPES[kind])
        # A new class each time: changes by a pickle cannot affect later ones.
        return type("Inert", (Inert,), {"torch_name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> _Storage:
        # ("storage", type, key, device, numel); in the old layout also a view of another storage.
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise _Malformed("a storage is described in an unknown way")
        _, kind, key, _, numel = pid[:5]
        if not (isinstance(kind, _Named) and isinstance(key, str) and _is_count(numel)):
            raise _Malformed(f"storage {key!r} is of an unknown type")
        if len(pid) > 5 and pid[5] is not None:
            raise _Malformed("it uses storage views, which PyTorch has not written since 0.4")
        if key not in self.storages:
            self.storages[key] = _Storage(self.source, key, kind.dtype, numel)
        return self.storages[key]


def _load(stream: BinaryIO, source: _Source) -> tuple[Any, dict[str, _Storage]]:
    """Reads one pickle from the stream, and leaves the stream behind it."""
    start = stream.tell()
    for opcode, argument, position in pickletools.genops(stream):
        # CPython allocates memory up to the index of a memo entry, however large the index claims
        # to be.
        puts = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if puts and (argument or 0) > (position or 0) + 1:
            raise _Malformed("its pickle is malformed")
        if opcode.name in _REFUSED_OPCODES:
            raise _Malformed(f"its pickle uses {opcode.name}, which PyTorch does not write")
    end = stream.tell()
    stream.seek(start)
    unpickler = _Unpickler(io.BytesIO(stream.read(end - start)), source)
    return unpickler.load(), unpickler.storages


def _open_zip(path: Path) -> Iterator[Any]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Malformed("it is a zip file, but not one that torch.save wrote")
        root = pickles[0].removesuffix("data.pkl")
        if any(n.startswith(f"{root}code/") for n in names):
            raise _Malformed(
                "it is a TorchScript archive; save the model's state_dict() with torch.save"
            )
        info = archive.getinfo(pickles[0])
        size = path.stat().st_size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise _Malformed("its pickle is compressed, which PyTorch does not do")
        source = _ZipSource(archive, root, size)
        yield _load(io.BytesIO(archive.read(info)), source)[0]


def _open_old(path: Path) -> Iterator[Any]:
    with path.open("rb") as stream:
        if _load(stream, _Source())[0] != MAGIC:
            raise _Malformed("it is a pickle, but not one that torch.save wrote")
        protocol = _load(stream, _Source())[0]
        if protocol != PROTOCOL:
            raise _Malformed(f"it is of PyTorch's protocol {protocol!r}, not {PROTOCOL}")
        system = _load(stream, _Source())[0]
        little = system.get("little_endian", True) if isinstance(system, dict) else True
        source = _OldSource(stream, bool(little))
        content, storages = _load(stream, source)
        keys, _ = _load(stream, source)
        if not isinstance(keys, list):
            raise _Malformed("its list of storages is missing")
        source.find(keys, storages, path.stat().st_size)
        yield content


@contextmanager
def open_torch(path: str | Path) -> Iterator[Any]:
    """Yields the object that `torch.save` wrote: dicts, lists, numbers, `Tensor` and `Inert`.

    It reads a tensor only when its `numpy()` is called, which must be inside the `with`.

    Raises:
        WeightFileError: the file is damaged, or of a kind that contains code.
    """
    path = Path(path)
    with path.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    try:
        with contextmanager(_open_zip if is_zip else _open_old)(path) as content:
            yield content
    except WeightFileError:
        raise
    except _Malformed as error:
        raise WeightFileError(f"cannot read {path}: {error}") from error
    except (zipfile.BadZipFile, struct.error, *_PICKLE_ERRORS) as error:
        raise WeightFileError(f"cannot read {path} as a PyTorch file: {error!r}") from error
