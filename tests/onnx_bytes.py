"""Writes small ONNX files byte by byte, so that tests need no package for it."""

import json
import struct

import numpy as np

UINT8, FLOAT, INT64 = 2, 1, 7


def number(value):
    """Encodes a variable-length number."""
    done = bytearray()
    while value > 0x7F:
        done.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(done + bytes([value]))


def field(place, value):
    """Encodes one field: an int, or bytes or text with its length."""
    if isinstance(value, int):
        return number(place << 3) + number(value)
    content = value.encode() if isinstance(value, str) else value
    return number(place << 3 | 2) + number(len(content)) + content


def _node(kind, inputs, output, **attributes):
    fields = [field(1, name) for name in inputs] + [field(2, output), field(4, kind)]
    for name, value in attributes.items():
        whole = value if isinstance(value, list) else [value]
        kinds = (8, 7) if isinstance(value, list) else (3, 2)
        content = b"".join(field(kinds[0], one) for one in whole)
        fields.append(field(5, field(1, name) + content + field(20, kinds[1])))
    return field(1, b"".join(fields))


def _constant(name, array):
    dims = b"".join(field(1, side) for side in array.shape)
    return field(5, dims + field(2, FLOAT) + field(8, name) + field(9, array.tobytes()))


def _value(place, name, kind, shape):
    dims = b"".join(
        field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape
    )
    tensor = field(1, kind) + field(2, dims)
    return field(place, field(1, name) + field(2, field(1, tensor)))


def metadata(size=32, classes=("cat", "dog"), like=None, **changes):
    """Returns an export's metadata for images of `size` pixels, evaluated `like` a program."""
    crop = {"padding": 8, "method": "crop", "interpolation": "bilinear", "antialias": False}
    return {
        "arch": "efficientnet-test",
        "source": "step-00000014 (raw weights, epoch 2)",
        "weights": "raw",
        "weights_sha256": "ab" * 32,
        "classes": list(classes),
        "preprocessing": {
            "image_size": size,
            "crop": crop | {"exif_orientation": "apply"},
            "evaluation_like": like,
        },
    } | changes


def network(
    weights, *, size=32, about=None, opset=17, images="images", kind=UINT8, graph=True, shape=None
):
    """Returns an ONNX file whose logits are the mean colour times `weights`.

    Args:
        weights: float32 `(3, classes)`.
        size: side of its images in pixels.
        about: its metadata; None: none.
        opset: version of ONNX's operations.
        images: name of the input.
        kind: its data type.
        graph: whether there is a graph at all.
        shape: of an image, instead of `(size, size, 3)`.
    """
    weights = np.asarray(weights, np.float32)
    parts = [
        _node("Cast", [images], "float", to=FLOAT),
        _node("ReduceMean", ["float"], "colour", axes=[1, 2], keepdims=0),
        _node("MatMul", ["colour", "weights"], "logits"),
        _node("Softmax", ["logits"], "probabilities", axis=1),
        field(2, "tiny"),
        _constant("weights", weights),
        _value(11, images, kind, ["batch", *(shape or (size, size, 3))]),
        *(
            _value(12, name, FLOAT, ["batch", weights.shape[1]])
            for name in ("logits", "probabilities")
        ),
    ]
    file = field(1, 8) + field(2, "tests") + (field(7, b"".join(parts)) if graph else b"")
    file += field(8, field(2, opset))
    properties = {} if about is None else {"metadata.json": json.dumps(about)}
    for name, text in properties.items():
        file += field(14, field(1, name) + field(2, text))
    return file


def floats(*values):
    """Packs float32 numbers."""
    return struct.pack(f"<{len(values)}f", *values)
