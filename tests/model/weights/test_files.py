"""Weight files are read; PyTorch's are built here byte by byte, without PyTorch."""

import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from convoy.model.weights.files import WeightFileError, read_weights

STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "bf": "BFloat16Storage"}


class FakeStorage:
    def __init__(self, array, kind):
        self.array, self.kind = array, kind


class FakeTensor:
    """A tensor that is pickled as PyTorch does it: a call of `_rebuild_tensor_v2` on a storage."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


def tensor(values, kind="f4"):
    values = np.asarray(values)
    flat = values.ravel()
    stored = flat.astype(np.float32).view(np.uint32) >> 16 if kind == "bf" else flat.astype(kind)
    stored = stored.astype(np.uint16) if kind == "bf" else stored
    strides = tuple(s // values.itemsize for s in np.ascontiguousarray(values).strides)
    return FakeTensor(FakeStorage(stored, kind), 0, values.shape, strides if values.ndim else ())


@pytest.fixture
def torch_names(monkeypatch):
    """Fake modules with the names in PyTorch's pickles, which `pickle` needs when writing."""

    def named(name, module):
        return type(name, (), {"__module__": module})

    def _rebuild_tensor_v2(*args):
        raise AssertionError("called while reading")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in STORAGES.values():
        setattr(torch, name, named(name, "torch"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


@pytest.fixture
def save(torch_names, monkeypatch, tmp_path):
    """A function that writes an object as `torch.save` does, and then removes the fake modules."""

    def write(content, name="weights.pth", old=False):
        stored = {}

        class Pickler(pickle.Pickler):
            def persistent_id(self, item):
                if not isinstance(item, FakeStorage):
                    return None
                key = next((k for k, v in stored.items() if v is item), str(len(stored)))
                stored[key] = item
                kind = getattr(torch_names, STORAGES[item.kind])
                pid = ("storage", kind, key, "cpu", len(item.array))
                return (*pid, None) if old else pid

        stream = io.BytesIO()
        Pickler(stream, protocol=2).dump(content)
        path = tmp_path / name
        if old:
            system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
            with path.open("wb") as file:
                for header in (0x1950A86A20F9469CFC6C, 1001, system):
                    file.write(pickle.dumps(header, protocol=2))
                file.write(stream.getvalue())
                file.write(pickle.dumps(list(stored), protocol=2))
                for item in stored.values():
                    file.write(struct.pack("<q", len(item.array)) + item.array.tobytes())
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", stream.getvalue())
                for key, item in stored.items():
                    archive.writestr(f"archive/data/{key}", item.array.tobytes())
        monkeypatch.delitem(sys.modules, "torch")
        monkeypatch.delitem(sys.modules, "torch._utils")
        return path

    return write


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before the zip"])
def test_a_pytorch_state_dict_is_read_with_its_values(save, old):
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    shared = FakeStorage(weights.ravel(), "f4")
    content = OrderedDict(
        {
            "conv.weight": tensor(weights),
            "half": tensor([1.5, -2.0], "f2"),
            "brain": tensor([1.0, -0.5, 3.0], "bf"),
            "bn.num_batches_tracked": tensor(7, "i8"),
            "transposed": FakeTensor(shared, 0, (4, 6), (1, 4)),
            "slice": FakeTensor(shared, 5, (2, 2), (8, 3)),
            "expanded": FakeTensor(shared, 2, (3, 5), (0, 0)),
            "empty": FakeTensor(shared, 0, (0, 3), (3, 1)),
        }
    )
    file = read_weights(save(content, old=old))
    assert (file.kind, file.variant, file.has_ema) == ("torch", "raw", False)
    expected = {
        "conv.weight": weights,
        "half": [1.5, -2.0],
        "brain": [1.0, -0.5, 3.0],
        "transposed": weights.reshape(6, 4).T,
        "slice": [[5, 8], [13, 16]],
        "expanded": np.full((3, 5), 2.0),
        "empty": np.zeros((0, 3)),
    }
    assert file.arrays.keys() == expected.keys()
    for name, values in expected.items():
        assert file.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(file.arrays[name], values)


class Recipe:
    """A class of another trainer, unknown to the reader."""

    def __init__(self):
        self.rate = 0.1


def test_weights_and_average_are_found_in_another_trainers_checkpoint(save):
    """It has prefixes, a moving average, an optimizer, unknown objects, and a tensor at the top."""
    content = {
        "epoch": 3,
        "arch": "tf_efficientnet_b0",
        "args": Recipe(),
        "best": tensor(76.5),
        "state_dict": {"module.fc.weight": tensor([[1.0, 2.0]])},
        "state_dict_ema": {"module.fc.weight": tensor([[3.0, 4.0]])},
        "optimizer": {"state": {0: {"momentum": tensor([9.0])}}, "groups": [Recipe()]},
    }
    path = save(content, "model.pth.tar")
    for ema, variant, values in ((None, "ema", [[3, 4]]), (False, "raw", [[1, 2]])):
        file = read_weights(path, ema=ema)
        assert file.variant == variant
        assert file.has_ema
        assert file.facts == {"epoch": 3, "arch": "tf_efficientnet_b0"}
        assert file.arrays.keys() == {"fc.weight"}
        np.testing.assert_array_equal(file.arrays["fc.weight"], values)


def test_a_file_without_a_moving_average_is_refused_if_one_is_asked_for(save):
    with pytest.raises(WeightFileError, match="holds no moving average"):
        read_weights(save({"a": tensor([1.0])}), ema=True)


class Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("old", [False, True])
def test_reading_does_not_run_code_in_a_pickle(save, tmp_path, old):
    mark = tmp_path / "ran"
    content = {
        "state_dict": {"w": tensor([1.0])},
        "shell": Attack(os.system, f"touch {mark}"),
        "python": Attack(eval, f"open({str(mark)!r}, 'w')"),
        "nested": Attack(getattr, Attack(__import__, "os"), "mkdir"),
        "file": Attack(open, str(mark), "w"),
    }
    path = save(content, old=old)
    with path.open("rb") as stream:
        assert b"eval" in stream.read()  # the attack is in the file
    np.testing.assert_array_equal(read_weights(path).arrays["w"], [1.0])
    assert not mark.exists()


def test_a_pickle_cannot_change_the_readers_objects(save):
    """State that is set on replacements of PyTorch's functions, or on a tensor, is dropped."""
    stream = io.BytesIO()
    stream.write(b"\x80\x02}(X\x01\x00\x00\x00a")
    stream.write(b"ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xsb")
    stream.write(b"X\x01\x00\x00\x00bccollections\nOrderedDict\n)R}X\x05\x00\x00\x00items")
    stream.write(b"cposix\nsystem\nsbu.")
    pickle_only = stream.getvalue()
    path = save({"w": tensor([1.0])})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_only)
    with pytest.raises(WeightFileError, match="holds no state dict; at its top are a, b"):
        read_weights(path)


def test_a_pickled_model_is_refused(save):
    with pytest.raises(WeightFileError, match=r"whole pickled model .*Recipe.*state_dict"):
        read_weights(save(Recipe()))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((5,), (1,), 0), ((2, 2), (3, 1), 0), ((1,), (1,), 9), ((1 << 40, 1 << 40), (0, 0), 0)],
)
def test_a_tensor_larger_than_its_storage_is_refused(save, shape, strides, offset):
    storage = FakeStorage(np.zeros(4, np.float32), "f4")
    path = save({"w": FakeTensor(storage, offset, shape, strides)})
    with pytest.raises(WeightFileError, match="storage"):
        read_weights(path)


def test_a_damaged_pytorch_file_is_refused_with_its_name(save, tmp_path):
    good = save({"w": tensor(np.ones(1000))}).read_bytes()
    for name, content in {
        "cut.pth": good[: len(good) // 2],
        "no_pickle.pth": good.replace(b"data.pkl", b"data.pkx"),
        "memo.pth": b"\x80\x02r\xff\xff\xff\xff.",
        "other.pkl": pickle.dumps({"a": 1}),
        "empty.pth": b"",
        "text.pth": b"no weights at all, only words",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightFileError, match=name):
            read_weights(path)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "h5", "keras", "bin"])
def test_a_file_without_weights_is_described_by_its_content(ending, tmp_path):
    for content, says in (
        (
            b"no weights at all, only words",
            "is text, not a weight file, although its name ends like one",
        ),
        ("nur W\xf6rter".encode(), "is text, not a weight file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is only Git LFS's pointer"),
        (b"\n<!DOCTYPE html><title>404", "is a web page, not a weight file"),
        (b"", "is empty"),
        (bytes(3000), "begins with only zeros"),
        (b"\1\2\3" * 99, "does not hold weights of a known kind"),
    ):
        path = tmp_path / f"weights.{ending}"
        path.write_bytes(content)
        with pytest.raises(WeightFileError) as refused:
            read_weights(path)
        assert str(refused.value).startswith(f"{path} {says}")


def test_compressed_storages_are_refused(save, tmp_path):
    """PyTorch does not compress storages; a compressed one could expand to any size."""
    path = save({"w": tensor(np.zeros(1000))})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            packed = zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED
            archive.writestr(name, content, compress_type=packed)
    with pytest.raises(WeightFileError, match="compressed"):
        read_weights(path)


def test_reading_imports_neither_tensorflow_nor_pytorch(save, convoy, script):
    path = save({"w": tensor([1.0, 2.0])})
    text = (
        "import sys\nfrom convoy.model.weights.files import read_weights\n"
        f"print(read_weights({str(path)!r}).arrays['w'].sum())\n"
        "print({'tensorflow', 'torch', 'keras'} & set(sys.modules))\n"
    )
    assert convoy(script=script(text)).out.split("\n")[:2] == ["3.0", "set()"]


def test_a_safetensors_file_is_read_and_a_damaged_one_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    brain = (np.array([1.0, -0.5], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {
        "__metadata__": {"arch": "resnet50"},
        "module.a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
        "module.b": {"dtype": "F16", "shape": [1], "data_offsets": [4, 6]},
    }
    # The first byte of this length is that of a pickle.
    text = json.dumps(header).encode().ljust(0x180)
    content = struct.pack("<q", len(text)) + text + brain + np.float16([2.5]).tobytes()
    path.write_bytes(content)
    file = read_weights(path)
    assert file.kind == "torch"
    assert file.facts["arch"] == "resnet50"
    assert {k: v.dtype.name for k, v in file.arrays.items()} == {"a": "float32", "b": "float32"}
    assert {k: v.tolist() for k, v in file.arrays.items()} == {"a": [1.0, -0.5], "b": [2.5]}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightFileError, match="damaged"):
        read_weights(path)


def test_keras_weights_are_read_by_the_names_of_layers(tmp_path):
    """Keras 3.15.1 itself loads them by place: findings/keras_weights_h5_ignores_layer_names.sh."""
    import keras

    entry = keras.Input((4,))
    branches = {name: keras.layers.Dense(3, name=name)(entry) for name in ("left", "right")}
    joined = keras.layers.Concatenate()([branches["right"], branches["left"]])
    model = keras.Model(entry, joined)
    model.save_weights(tmp_path / "model.weights.h5")
    found = read_weights(tmp_path / "model.weights.h5").arrays
    assert found.keys() == {f"{name}/{part}" for name in branches for part in ("kernel", "bias")}
    for name in branches:
        np.testing.assert_array_equal(found[f"{name}/kernel"], model.get_layer(name).kernel)


def test_a_checkpoint_folder_is_read_and_a_damaged_one_refused(trained, tmp_path):
    import shutil

    raw, ema = (read_weights(trained.model_dir, ema=e) for e in (False, True))
    assert (raw.kind, raw.variant, ema.variant) == ("convoy", "raw", "ema")
    assert raw.facts["model"]["arch"] == "efficientnet-test"
    assert raw.arrays.keys() == ema.arrays.keys()
    assert any((raw.arrays[k] != ema.arrays[k]).any() for k in raw.arrays)
    better = json.loads((raw.path / "state.json").read_text()).get("better_weights", "raw")
    assert read_weights(raw.path).variant == better

    copy = shutil.copytree(raw.path, tmp_path / "step-1")
    with (copy / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x7f")
    with pytest.raises(WeightFileError, match="checksum"):
        read_weights(copy, ema=False)
    with pytest.raises(WeightFileError, match="no complete checkpoint"):
        read_weights(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightFileError, match="does not exist"):
        read_weights(tmp_path / "nothing.pth")
