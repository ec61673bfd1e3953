"""Reads weight files of several kinds into NumPy arrays. Knows nothing about models.

| kind    | files                                               | names in `arrays`            |
|---------|-----------------------------------------------------|------------------------------|
| keras   | `.keras`, `.weights.h5`, `.h5` of keras.applications | `layer/variable`             |
| convoy  | checkpoint folders, our `.safetensors`               | `layer/variable`             |
| torch   | `.pth`, `.pt`, `.pth.tar`, `.safetensors`            | as stored, prefixes removed  |

The content decides the kind, not the name. It executes nothing that it reads, and imports neither
TensorFlow nor PyTorch.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from convoy.model.weights.torch_pickle import Inert, Tensor, WeightFileError, decode, open_torch
from convoy.utils.score_file import with_score

__all__ = ["WeightFile", "WeightFileError", "read_weights"]

CHECKPOINT_MARKER = "COMPLETE.json"

_SAFETENSORS_DTYPES = {
    **{"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1"},
    **{"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"},
}

# Keys under which trainers save weights.
_RAW_KEYS = ("state_dict", "model", "model_state_dict", "model_state", "net")
_EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
# Prefixes that wrappers put before every name: data parallel, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_LOOKED_AT = 512  # bytes to read of a file of unknown kind
# Counters beside weights: of batch norm, of PyTorch's AveragedModel, of the profiler thop.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")


@dataclass(frozen=True)
class WeightFile:
    """The contents of a weight file.

    Attributes:
        path: the file, or the checkpoint's folder.
        kind: "keras", "convoy" or "torch".
        variant: "ema" or "raw"; a file with only one set of weights is "raw".
        arrays: name -> array. 16-bit floats are converted to float32.
        facts: what else the file says about its model: `arch`, `model` (build arguments of a
            checkpoint), `config` (Keras' own), `keras` (2 for that version's layout), and numbers
            and texts that a trainer saved with it.
        has_ema: whether the file also has a moving average.
    """

    path: Path
    kind: str
    variant: str
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)
    has_ema: bool = False


def read_weights(path: str | Path, *, ema: bool | None = None) -> WeightFile:
    """Reads the weights in a file or in a checkpoint's folder.

    Args:
        path: a file, a folder `checkpoints/step-…`, or a model_dir (its best checkpoint).
        ema: True: the moving average. False: the trained weights. None: from our own checkpoints,
            the better of the two when they were saved; from others the moving average if there is
            one, because those trainers validate with it.

    Raises:
        WeightFileError: the file is missing, damaged, of an unknown kind, or lacks the requested
            moving average.
    """
    path = Path(path)
    if not path.exists():
        raise WeightFileError(f"{path} does not exist")
    try:
        found = _read_checkpoint(path, ema) if path.is_dir() else _read_file(path, ema)
    except OSError as error:
        raise WeightFileError(f"{path} cannot be read: {error}") from error
    if ema and found.variant != "ema":
        raise WeightFileError(f"{path} holds no moving average; use the weights that it has")
    if not found.arrays:
        raise WeightFileError(f"{path} holds no weights")
    return found


def _read_file(path: Path, ema: bool | None) -> WeightFile:
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(b"\x89HDF"):
        return _read_h5(path)
    if head.startswith(b"PK\x03\x04") and _is_keras_archive(path):
        return _read_keras(path)
    # check before PyTorch's: the length in front of it may begin with any byte
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_torch(path, ema)
    if path.name.endswith(".weights.json"):
        raise WeightFileError(f"{path} is a sharded Keras file; save it as one .weights.h5")
    raise WeightFileError(f"{path} {_what_it_is(path)}")


def _what_it_is(path: Path) -> str:
    """Describes the content of a file that is not of our kinds, whatever its name says."""
    with path.open("rb") as stream:
        head = stream.read(_LOOKED_AT)
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is only Git LFS's pointer to the file: git lfs pull fetches the file"
    if re.match(rb"\s*<(!doctype html|html)", head, re.IGNORECASE):
        return "is a web page, not a weight file: download it again"
    if not head.strip(b"\0"):
        return "begins with only zeros, like an interrupted download: download it again"
    if re.fullmatch(rb"[\t\n\r\x20-\x7e\x80-\xff]*", head):
        return "is text, not a weight file, although its name ends like one"
    return (
        "does not hold weights of a known kind: .keras, .h5, .safetensors, .pth/.pt or a"
        " checkpoint's folder"
    )


# ---- Keras --------------------------------------------------------------------------------------


def _is_keras_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "model.weights.h5"} <= set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise WeightFileError(f"{path} is a damaged zip file: {error}") from error


def _read_keras(path: Path) -> WeightFile:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            content = io.BytesIO(archive.read("model.weights.h5"))
    except (zipfile.BadZipFile, ValueError) as error:
        raise WeightFileError(f"{path} is a damaged .keras file: {error}") from error
    return _read_h5(path, content, {"config": config})


def _read_h5(path: Path, content: Any = None, facts: dict | None = None) -> WeightFile:
    import h5py

    try:
        with h5py.File(content or path, "r") as file:
            if "layer_names" in file.attrs or "model_weights" in file:
                arrays = _old_h5(file.get("model_weights", file))
                text = file.attrs.get("model_config")
                facts = {"config": json.loads(text)} if text else {"keras": 2}
            else:
                arrays = _new_h5(file)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise WeightFileError(f"{path} is damaged or not Keras': {error}") from error
    # Keras numbers the layers that it names: the second model in a process has normalization_1.
    arrays = {re.sub(r"^normalization_\d+/", "normalization/", k): v for k, v in arrays.items()}
    return WeightFile(path, "keras", "raw", arrays, facts or {})


def _old_h5(root: Any) -> dict[str, np.ndarray]:
    """Reads Keras 2's layout: a group per layer, whose `weight_names` list its arrays."""
    arrays = {}
    for layer in root.attrs["layer_names"]:
        group = root[_text(layer)]
        for name in group.attrs["weight_names"]:
            variable = _text(name).rsplit("/", 1)[-1].split(":")[0]
            if variable == "depthwise_kernel":  # its name in Keras 2
                variable = "kernel"
            arrays[f"{_text(layer)}/{variable}"] = np.asarray(group[_text(name)])
    return arrays


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _new_h5(root: Any) -> dict[str, np.ndarray]:
    """Reads Keras 3's layout: `vars` groups have the layer's name, their arrays only numbers."""
    import h5py

    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Group) or name.rsplit("/", 1)[-1] != "vars" or not len(item):
            return
        if "seed_generator" in name or "optimizer" in name.split("/"):
            return
        layer = _text(item.attrs.get("name", name.split("/")[-2]))
        values = [np.asarray(item[key]) for key in sorted(item, key=int)]
        for variable, value in zip(_variable_names(values), values, strict=True):
            arrays[f"{layer}/{variable}"] = value

    root.visititems(visit)
    return arrays


def _variable_names(values: list[np.ndarray]) -> list[str]:
    ranks = tuple(value.ndim for value in values)
    known = {
        (1, 1, 1, 1): ["gamma", "beta", "moving_mean", "moving_variance"],
        (1, 1, 0): ["mean", "variance", "count"],
    }
    if ranks in known:
        return known[ranks]
    if ranks and ranks[0] in (2, 4) and ranks[1:] in ((), (1,)):
        return ["kernel", "bias"][: len(values)]
    return [f"variable_{i}" for i in range(len(values))]


# ---- our own ------------------------------------------------------------------------------------


def _read_checkpoint(path: Path, ema: bool | None) -> WeightFile:
    folder = path if (path / CHECKPOINT_MARKER).exists() else _best_checkpoint(path)
    try:
        marker = json.loads((folder / CHECKPOINT_MARKER).read_text())
        state = json.loads(_verified(folder, "state.json", marker))
        has_ema = "ema.safetensors" in marker
        state = with_score(folder, state, has_ema)
        if ema is None:
            ema = has_ema and state.get("better_weights") == "ema"
        variant = "ema" if ema and has_ema else "raw"
        name = "ema.safetensors" if variant == "ema" else "model.safetensors"
        arrays, _ = _parse_safetensors(_verified(folder, name, marker))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightFileError(f"the checkpoint {folder} is damaged: {error}") from error
    facts: dict[str, Any] = {k: state[k] for k in ("model", "class_names") if k in state}
    facts["arch"] = state.get("model", {}).get("arch")
    facts["applied"] = _applied(folder, state)
    return WeightFile(folder, "convoy", variant, arrays, facts, has_ema)


def _applied(folder: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how a checkpoint's run applies it; see `model.weights.origin`."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        wanted = ("eval_crop", "crop_padding", "interpolation", "exif_orientation")
        found = {name: settings[name] for name in wanted if name in settings}
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        found = {}
    names = state.get("class_names")
    return found | ({"class_names": names} if names else {})


def _best_checkpoint(model_dir: Path) -> Path:
    folder = model_dir / "checkpoints"
    complete = sorted(p for p in folder.glob("step-*") if (p / CHECKPOINT_MARKER).exists())
    try:
        best = folder / Path(json.loads((folder / "best.json").read_text())["checkpoint"]).name
    except (OSError, ValueError, KeyError, TypeError):
        best = None
    if not complete:
        raise WeightFileError(f"the folder {model_dir} holds no complete checkpoint")
    return best if best in complete else complete[-1]


def _verified(folder: Path, name: str, marker: Mapping[str, Any]) -> bytes:
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != marker[name]["sha256"]:
        raise ValueError(f"{name} does not match its checksum")
    return content


# ---- safetensors --------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> WeightFile:
    try:
        arrays, metadata = _parse_safetensors(path.read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        raise WeightFileError(f"{path} is damaged or not safetensors: {error}") from error
    facts: dict[str, Any] = dict(metadata)
    if "model" in facts:  # the build arguments, as written by `export_weights`
        try:
            facts["model"] = json.loads(facts["model"])
        except ValueError:
            del facts["model"]
    if any("/" in name for name in arrays):
        return WeightFile(path, "convoy", "raw", arrays, facts)
    return WeightFile(path, "torch", "raw", _clean(arrays), facts)


def _parse_safetensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(content)  # not `safetensors.numpy`: its bfloat16 needs ml_dtypes
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    arrays = {}
    for name, tensor in tensors:
        dtype = tensor["dtype"]
        code = "bfloat16" if dtype == "BF16" else _SAFETENSORS_DTYPES.get(dtype)
        if code is None:
            raise ValueError(f"{name} is of type {dtype}, which NumPy does not know")
        arrays[name] = _widen(decode(tensor["data"], code).reshape(tensor["shape"]))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return arrays, header.get("__metadata__", {})


def _widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


# ---- PyTorch ------------------------------------------------------------------------------------


def _read_torch(path: Path, ema: bool | None) -> WeightFile:
    with open_torch(path) as content:
        chosen, variant, has_ema = _choose(content, ema, path)
        arrays = {
            name: _widen(value.numpy()) for name, value in chosen.items() if _is_weight(name, value)
        }
    facts = {}
    if content is not chosen and isinstance(content, dict):
        facts = {k: v for k, v in content.items() if isinstance(v, (str, int, float))}
    return WeightFile(path, "torch", variant, _clean(arrays), facts, has_ema)


def _is_weight(name: Any, value: Any) -> bool:
    # Counters are dropped without reading: nothing here uses them.
    return isinstance(name, str) and isinstance(value, Tensor) and not _is_counter(name)


def _is_counter(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in _COUNTERS


def _choose(content: Any, ema: bool | None, path: Path) -> tuple[dict, str, bool]:
    """Returns the requested state dict, its variant, and whether there is an average at all."""
    if isinstance(content, Inert):
        raise WeightFileError(
            f"{path} holds a whole pickled model ({content.torch_name}), which only its own code"
            " can read; save model.state_dict() instead"
        )
    top = content if isinstance(content, dict) else {}
    averaged, raw = _first(top, _EMA_KEYS), _first(top, _RAW_KEYS)
    # Last, since trainers also save single tensors at the top, such as the best accuracy.
    if averaged is None and raw is None and _is_state_dict(top):
        return top, "raw", False
    if averaged is not None and ema is not False:
        return averaged, "ema", True
    if raw is None:
        if averaged is not None:
            raise WeightFileError(f"{path} holds only a moving average; ask for that one")
        keys = ", ".join(sorted(str(key) for key in top)[:10]) or "nothing"
        raise WeightFileError(f"{path} holds no state dict; at its top are {keys}")
    return raw, "raw", averaged is not None


def _first(content: dict, keys: tuple[str, ...]) -> dict | None:
    for key in keys:
        value = content.get(key)
        for inner in (value, *_wrapped(value)):
            if _is_state_dict(inner):
                return inner
    return None


def _wrapped(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        return []
    return [value.get(key) for key in ("module", "state_dict", "shadow")]


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values())


def _clean(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes prefixes that wrappers add to every name, and counters."""
    arrays = {k: v for k, v in arrays.items() if not _is_counter(k)}
    while arrays:
        shared = [p for p in _PREFIXES if all(name.startswith(p) for name in arrays)]
        if not shared:
            break
        arrays = {name.removeprefix(shared[0]): v for name, v in arrays.items()}
    return arrays
